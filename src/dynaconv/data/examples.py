"""Makes an example from a row, inside the loader's workers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from dynaconv.data.decoding import BadImage
from dynaconv.data.sampling import Draw

REPLACEMENTS = 100  # unreadable images in a row before a source counts as unreadable


class Reader(Protocol):
    """One split as its task reads it: ``reader[row]`` decodes and transforms the example of that row.

    Random access is what makes order, resuming and evaluation over many processes exact. What an example is (an image
    and a label, an image and boxes) is between the task's reader and its collate function.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> Any:
        """Raises :class:`~dynaconv.data.decoding.BadImage` for an image that cannot be read."""
        ...


class Loaded(NamedTuple):
    """One example; ``example`` is ``None`` where an unreadable one is left out."""

    example: Any
    bad: tuple[tuple[str, str], ...] = ()  # (name, reason) of the images that could not be read


class Examples(Dataset[Loaded]):
    """The examples of one split.

    In training the random numbers of an example's augmentation come from (seed, epoch, row) alone, so that they are
    the same with any number of workers and after any resumption. An unreadable image is replaced by another one drawn
    from the same random numbers; in evaluation it is left out. Both report it: the policy is the loader's.

    Args:
        reader: of the split.
        seed: of the augmentation; ``None`` for evaluation.
    """

    def __init__(self, reader: Reader, *, seed: int | None) -> None:
        self.reader, self.seed = reader, seed

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, draw: Draw) -> Loaded:
        return self.__getitems__([draw])[0]

    def __getitems__(self, draws: list[Draw]) -> list[Loaded]:
        if self.seed is None:
            return [self._plain(draw.row) for draw in draws]
        with _generators_restored():
            return [self._augmented(draw, self.seed) for draw in draws]

    def _plain(self, row: int) -> Loaded:
        try:
            return Loaded(self.reader[row])
        except BadImage as error:
            return Loaded(None, ((error.name, error.reason),))

    def _augmented(self, draw: Draw, seed: int) -> Loaded:
        _seed_generators(number_of(seed, draw.epoch, draw.row))
        bad: list[tuple[str, str]] = []
        row = draw.row
        for attempt in range(REPLACEMENTS):
            try:
                return Loaded(self.reader[row], tuple(bad))
            except BadImage as error:
                bad.append((error.name, error.reason))
                row = number_of(seed, draw.epoch, draw.row, attempt) % len(self.reader)
        return Loaded(None, tuple(bad))


def number_of(*parts: int) -> int:
    """A 32-bit hash of ``parts``, used as a seed; much faster than constructing a generator of numpy."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=4).digest(), "little")


def _seed_generators(seed: int) -> None:
    """Seed all three generators, because timm and torchvision use all. (torch.manual_seed would seed CUDA too.)"""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the global generator is what timm reads
    torch.default_generator.manual_seed(seed)


@contextmanager
def _generators_restored() -> Iterator[None]:
    """Restore the random state afterwards: without workers this code runs in the training process."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
