"""From an index to a tensor, inside the loader's workers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dynaconv.data.augment import Transform
from dynaconv.data.decode import BadImage
from dynaconv.data.sampling import Draw
from dynaconv.data.source import Source

REPLACEMENTS = 100  # unreadable images in a row before a source counts as unreadable


class Loaded(NamedTuple):
    """One example; ``image`` is ``None`` where an unreadable one is left out."""

    image: Tensor | None
    label: int
    bad: tuple[tuple[str, str], ...] = ()  # (name, reason) of the images that could not be read


class Examples(Dataset[Loaded]):
    """A source with its transform.

    In training the random numbers of an example's augmentation come from (seed, epoch, index) alone, so that they are
    the same with any number of workers and after any resumption. An unreadable image is replaced by another one drawn
    from the same random numbers; in evaluation it is left out. Both report it: the policy is the loader's.
    """

    def __init__(self, source: Source, transform: Transform, *, seed: int | None) -> None:
        """``seed``: of the augmentation; ``None`` for evaluation."""
        self.source, self.transform, self.seed = source, transform, seed

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, draw: Draw) -> Loaded:
        return self.__getitems__([draw])[0]

    def __getitems__(self, draws: list[Draw]) -> list[Loaded]:
        if self.seed is None:
            return [self._plain(draw.row) for draw in draws]
        with _generators_restored():
            return [self._augmented(draw, self.seed) for draw in draws]

    def _plain(self, index: int) -> Loaded:
        label = int(self.source.labels[index])
        try:
            return Loaded(self.transform(self.source.image(index)), label)
        except BadImage as error:
            return Loaded(None, label, ((error.name, error.reason),))

    def _augmented(self, draw: Draw, seed: int) -> Loaded:
        _seed_generators(number_of(seed, draw.epoch, draw.row))
        bad: list[tuple[str, str]] = []
        index = draw.row
        for attempt in range(REPLACEMENTS):
            try:
                image = self.transform(self.source.image(index))
                return Loaded(image, int(self.source.labels[index]), tuple(bad))
            except BadImage as error:
                bad.append((error.name, error.reason))
                index = number_of(seed, draw.epoch, draw.row, attempt) % len(self.source)
        return Loaded(None, 0, tuple(bad))


def number_of(*parts: int) -> int:
    """32 bits that look random and follow from ``parts``; much quicker to have than from a generator of numpy's."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=4).digest(), "little")


def _seed_generators(seed: int) -> None:
    """timm and torchvision draw from all three. (torch.manual_seed would reset CUDA's generators too: not ours.)"""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the global generator is what timm reads
    torch.default_generator.manual_seed(seed)


@contextmanager
def _generators_restored() -> Iterator[None]:
    """Without workers we run in the training process, whose own random numbers must not notice."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
