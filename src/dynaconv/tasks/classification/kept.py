"""Small pictures kept in memory, so that a thin network does not wait for their decoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dynaconv.data import BadImage
from dynaconv.tasks.classification.source import Source
from dynaconv.tasks.classification.transforms import Augment, Preprocess, Transform, padding

LARGEST = 96  # pixels of a side
MOST_BYTES = 1 << 29


class OnPixels(Protocol):
    """A transform of a picture that has the network's size already: ``(S, S, 3)`` to ``(S, S, 3)``, both uint8."""

    def __call__(self, pixels: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class ShiftAndMirror:
    """The augmentation of small pictures, on pixels: shifted by up to ``pad``, mirrored.

    It draws the same random numbers in the same order as torchvision's ``RandomCrop``, ``RandomHorizontalFlip`` and
    ``RandomVerticalFlip``, so that a picture comes out the same, bit for bit.
    """

    pad: int
    hflip: float
    vflip: float

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        if self.pad:
            down, right = (int(torch.randint(0, 2 * self.pad + 1, size=(1,)).item()) for _ in range(2))
            pixels = _shifted(pixels, down - self.pad, right - self.pad)
        if self.hflip and torch.rand(1).item() < self.hflip:
            pixels = pixels[:, ::-1]
        if self.vflip and torch.rand(1).item() < self.vflip:
            pixels = pixels[::-1]
        return pixels


def _shifted(pixels: np.ndarray, down: int, right: int) -> np.ndarray:
    """What is seen through a window moved by that much; black outside of the picture."""
    height, width = pixels.shape[:2]
    seen = np.zeros_like(pixels)
    top, left = max(0, down), max(0, right)
    bottom, end = min(height, height + down), min(width, width + right)
    seen[top - down : bottom - down, left - right : end - right] = pixels[top:bottom, left:end]
    return seen


def training_on_pixels(preprocess: Preprocess, augment: Augment) -> OnPixels | None:
    """The training transform on pixels, or None where the augmentation needs the picture itself."""
    needs = augment.crop == "resized" or augment.color_jitter or augment.auto_augment or augment.random_erasing
    if needs:
        return None
    pad = padding(preprocess.image_size) if augment.crop == "pad" else 0
    return ShiftAndMirror(pad, augment.hflip or 0.0, augment.vflip)


def evaluation_on_pixels(preprocess: Preprocess) -> OnPixels | None:
    """The evaluation transform on pixels, or None where it resizes before it crops."""
    return ShiftAndMirror(0, 0.0, 0.0) if preprocess.crop_pct == 1 else None


class KeptImages:
    """As :class:`~dynaconv.tasks.classification.batches.LabelledImages`, but every picture of the network's size is
    decoded once and kept; the others are read every time.

    Args:
        source: the split.
        transform: for pictures of other sizes.
        on_pixels: the same transform for pictures of the network's size.
        side: height and width that the network sees.
    """

    def __init__(self, source: Source, transform: Transform, on_pixels: OnPixels, side: int) -> None:
        self._source, self._transform, self._on_pixels, self._side = source, transform, on_pixels, side
        self._pixels = np.empty((len(source), side, side, 3), dtype=np.uint8)
        self._there = np.zeros(len(source), dtype=bool)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        label = int(self._source.labels[row])
        if not self._there[row]:
            image = self._source.image(row)
            if image.size != (self._side, self._side):
                try:
                    return self._transform(image), label
                except BadImage as error:
                    raise BadImage(self._source.name(row), error.reason) from error
            self._pixels[row] = np.asarray(image)
            self._there[row] = True
        seen = self._on_pixels(self._pixels[row])
        return torch.from_numpy(np.ascontiguousarray(seen.transpose(2, 0, 1))), label


def keepable(source: Source, side: int) -> bool:
    """Whether the pictures of a split are small and few enough to be kept."""
    return side <= LARGEST and len(source) * side * side * 3 <= MOST_BYTES
