"""The interface of data sets for classification: pictures with labels, by random access; and the digits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

import numpy as np
from PIL import Image


class Source(Protocol):
    """One split: pictures that are decoded when asked for, and their labels."""

    @property
    def labels(self) -> Sequence[int]:
        """The label of every row."""
        ...

    def __len__(self) -> int: ...

    def image(self, index: int) -> Image.Image:
        """The decoded RGB picture; raises ``BadImage``."""
        ...

    def name(self, index: int) -> str:
        """What to call it in a message: usually its path."""
        ...

    def listed(self, index: int) -> tuple[str, int]:
        """What tells that the picture is still the same one: its name wherever the data lies, and its size in bytes (0
        where it has none)."""
        ...


class Subset:
    """Some rows of another source."""

    def __init__(self, whole: Source, indices: Sequence[int]) -> None:
        self.whole, self.indices = whole, indices
        self.labels: Sequence[int] = [whole.labels[index] for index in indices]

    def __len__(self) -> int:
        return len(self.indices)

    def image(self, index: int) -> Image.Image:
        return self.whole.image(self.indices[index])

    def name(self, index: int) -> str:
        return self.whole.name(self.indices[index])

    def listed(self, index: int) -> tuple[str, int]:
        return self.whole.listed(self.indices[index])


@dataclass(frozen=True)
class Splits:
    """A data set: its two splits, its class names, and its default preprocessing."""

    train: Source
    evaluation: Source
    classes: list[str]
    description: str
    image_size: int = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    crop_pct: float = 0.875
    crop: str = "resized"  # how training crops, see Augment
    hflip: float = 0.5


def listing(splits: Splits) -> dict[str, str]:
    """For every split and class how many pictures it has and a digest of their names and sizes.

    Two listings differ where a picture was added, removed, renamed, replaced by one of another size, or put into
    another class; where the data lies does not matter. Contents are not read.
    """
    lines: dict[str, str] = {}
    for name, source in (("train", splits.train), ("eval", splits.evaluation)):
        digests = [blake2b(digest_size=8) for _ in splits.classes]
        counts = [0] * len(splits.classes)
        for row, label in enumerate(source.labels):
            digests[label].update(repr(source.listed(row)).encode())
            counts[label] += 1
        for label, called in enumerate(splits.classes):
            lines[f"{name}/{called}"] = f"{counts[label]} images, digest {digests[label].hexdigest()}"
    return lines


def stratified_split(source: Source, share: float, seed: int = 0) -> tuple[Subset, Subset]:
    """Hold out ``share`` of every class (at least one of each class with two or more); the same for the same labels.

    The seed belongs to the data set and not to the run, so that networks trained with different seeds are compared on
    the same pictures.
    """
    labels = np.asarray(source.labels)
    random = np.random.default_rng(seed)
    held: list[int] = []
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        count = min(max(1, round(share * len(rows))), len(rows) - 1)
        held += [int(row) for row in rows[:count]]
    chosen = set(held)
    return Subset(source, [row for row in range(len(labels)) if row not in chosen]), Subset(source, sorted(held))


def stratified_rows(source: Source, size: int, seed: int = 0) -> list[int]:
    """``size`` rows, the classes in the same shares as in the whole; always the same ones.

    Each class's rows are shuffled and spread evenly over [0, 1); the rows with the smallest positions are taken.
    """
    labels = np.asarray(source.labels)
    random = np.random.default_rng(seed)
    position = np.empty(len(labels))
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        position[rows] = np.arange(len(rows)) / len(rows)
    return sorted(int(row) for row in np.argsort(position, kind="stable")[:size])


@dataclass(frozen=True)
class Digits:
    """scikit-learn's 1,797 handwritten digits as RGB pictures: real images that need no download.

    Three equal channels: every network takes them as it is.
    """

    pixels: np.ndarray  # (1797, 8, 8) uint8
    labels: Sequence[int]

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index]).convert("RGB")

    def name(self, index: int) -> str:
        return f"digits[{index}]"

    def listed(self, index: int) -> tuple[str, int]:
        return self.name(index), 0


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
