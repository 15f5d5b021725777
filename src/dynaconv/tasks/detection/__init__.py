"""Detection of objects: annotations in COCO's format, the augmentation of the SSD paper, average precision.

The networks are ``ssd300_*`` of :mod:`dynaconv.models`.
"""

from dynaconv.tasks.detection.datasets import DetectionData, open_data
from dynaconv.tasks.detection.task import Detection
from dynaconv.tasks.detection.transforms import DetectionOptions

TASK = Detection

__all__ = ["Detection", "DetectionData", "DetectionOptions", "open_data"]
