"""scikit-learn's 1,797 handwritten digits (8x8 grey): real images that need no download."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from dynaconv.data.source import Splits, stratified_split


@dataclass(frozen=True)
class Digits:
    """The whole set as RGB pictures (three equal channels: every network takes them as it is)."""

    pixels: np.ndarray  # (1797, 8, 8) uint8
    labels: Sequence[int]

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index]).convert("RGB")

    def name(self, index: int) -> str:
        return f"digits[{index}]"


def open_digits() -> Splits:
    """80 % to train on, 20 % to evaluate on, the same share of every digit, always the same ones."""
    from sklearn.datasets import load_digits

    grey, labels = load_digits(return_X_y=True)
    pixels = np.round(grey * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)  # 17 levels of grey
    train, evaluation = stratified_split(Digits(pixels, [int(label) for label in labels]), share=0.2)
    mean, std = float(grey.mean() / 16), float(grey.std() / 16)
    return Splits(
        train,
        evaluation,
        classes=[str(digit) for digit in range(10)],
        description="scikit-learn's handwritten digits, 8x8 grey; fixed stratified split",
        image_size=32,
        mean=(mean, mean, mean),
        std=(std, std, std),
        crop_pct=1.0,
        crop="pad",
        hflip=0.0,
    )
