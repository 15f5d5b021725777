"""Image classification: folders of images, shards and data sets by name; cross-entropy, top-1 and top-5.

>>> data = open_data("digits", batch_size=32, workers=0)
>>> images, labels = next(iter(data.train_loader))
>>> images.shape
torch.Size([32, 3, 32, 32])
"""

from dynaconv.tasks.classification.datasets import open_data, open_splits
from dynaconv.tasks.classification.image_data import ImageData
from dynaconv.tasks.classification.task import Classification, ClassificationOptions
from dynaconv.tasks.classification.transforms import Augment, Preprocess

TASK = Classification

__all__ = [
    "Augment",
    "Classification",
    "ClassificationOptions",
    "ImageData",
    "Preprocess",
    "open_data",
    "open_splits",
]
