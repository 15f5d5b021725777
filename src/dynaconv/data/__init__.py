"""Data sets and loaders.

>>> data = open_data("digits", batch_size=32)
>>> images, labels = next(iter(data.train_loader))
>>> images.shape
torch.Size([32, 3, 32, 32])
"""

from dynaconv.data.augment import Augment, Preprocess
from dynaconv.data.decode import BadImage, decode
from dynaconv.data.open import ImageData, open_data

__all__ = ["Augment", "BadImage", "ImageData", "Preprocess", "decode", "open_data"]
