"""Top-down keypoints: crops of persons (or mice) from annotation files in COCO's format; heat maps, OKS precision.

data = open_data("coco", image_size=(256, 192), batch_size=32)
network = data.network(ModelSpec(name="keypoints_b_dy_mobilenetv2_050"))
"""

from dynaconv.tasks.keypoints.augment import PoseAugment
from dynaconv.tasks.keypoints.data import KeypointData, open_data
from dynaconv.tasks.keypoints.pose import PoseSpec
from dynaconv.tasks.keypoints.task import KeypointOptions, Keypoints

TASK = Keypoints

__all__ = ["KeypointData", "KeypointOptions", "Keypoints", "PoseAugment", "PoseSpec", "open_data"]
