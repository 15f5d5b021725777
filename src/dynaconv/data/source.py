"""What a data set is to us: a row of pictures with labels, readable in any order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL.Image import Image


class Source(Protocol):
    """One split. Random access is what makes order, resuming and evaluation over many processes exact."""

    @property
    def labels(self) -> Sequence[int]:
        """The label of every row."""
        ...

    def __len__(self) -> int: ...

    def image(self, index: int) -> Image:
        """The decoded RGB picture; raises ``BadImage``."""
        ...

    def name(self, index: int) -> str:
        """What to call it in a message: usually its path."""
        ...


class Subset:
    """Some rows of another source."""

    def __init__(self, whole: Source, indices: Sequence[int]) -> None:
        self.whole, self.indices = whole, indices
        self.labels: Sequence[int] = [whole.labels[index] for index in indices]

    def __len__(self) -> int:
        return len(self.indices)

    def image(self, index: int) -> Image:
        return self.whole.image(self.indices[index])

    def name(self, index: int) -> str:
        return self.whole.name(self.indices[index])


@dataclass(frozen=True)
class Splits:
    """A data set: its two splits, its class names, and what is natural to it."""

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


def stratified_split(source: Source, share: float, seed: int = 0) -> tuple[Subset, Subset]:
    """Hold out ``share`` of every class (at least one of each class with two or more); the same for the same labels.

    The seed is part of the data set and not of the run: a split that moved with the run's seed would compare networks
    on different pictures.
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
