"""The composition of batches. It depends on the seed, the epoch and the step only, not on the state of a generator, so
that a resumed run can begin at any step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from dynaconv.errors import UserError

TRAINING_ORDER = 1  # separates the random numbers of the order from those of the augmentation


class Draw(NamedTuple):
    """One example of one epoch; workers seed its augmentation with it."""

    epoch: int
    row: int


class TrainBatches(Sampler[list[Draw]]):
    """Shuffled batches; every process takes its share of each.

    Batch n of an epoch holds the same examples however many processes share it. The examples left over at an epoch's
    end (fewer than a batch) are left out of that epoch; they are others every time.

    Args:
        size: examples in the split.
        batch_size: examples of one step over all processes; divided by ``processes`` without remainder.
        first: batch to begin with, to go on in the middle of an epoch.
    """

    def __init__(self, size: int, batch_size: int, *, seed: int, processes: int = 1, process: int = 0) -> None:
        if batch_size % processes:
            raise UserError(
                f"batch_size {batch_size} does not divide over {processes} processes; "
                f"take a multiple of {processes}, e.g. {batch_size // processes * processes or processes}"
            )
        if size < processes:
            raise UserError(f"{size} training examples are too few for {processes} processes")
        self.size = size
        # a data set smaller than a batch is one batch
        self.share = min(batch_size, size) // processes
        self.seed, self.processes, self.process = seed, processes, process
        self.epoch = 0
        self.first = 0

    def __len__(self) -> int:
        """Batches of an epoch (of a whole one, wherever it is begun)."""
        return self.size // self.whole

    @property
    def whole(self) -> int:
        """Examples of a batch over all processes."""
        return self.share * self.processes

    def __iter__(self) -> Iterator[list[Draw]]:
        order = np.random.default_rng([self.seed, TRAINING_ORDER, self.epoch]).permutation(self.size)
        for batch in range(self.first, len(self)):
            start = batch * self.whole + self.process * self.share
            yield [Draw(self.epoch, int(index)) for index in order[start : start + self.share]]


class EvaluationBatches(Sampler[list[Draw]]):
    """Every example once, in order; process p takes the batches p, p + processes, ... The last one may be short."""

    def __init__(self, size: int, batch_size: int, *, processes: int = 1, process: int = 0) -> None:
        self.size, self.batch_size = size, batch_size
        self.processes, self.process = processes, process

    def __len__(self) -> int:
        return len(self._starts())

    @property
    def whole(self) -> int:
        """Examples of a round over all processes (the last may have fewer)."""
        return self.batch_size * self.processes

    @property
    def rounds(self) -> int:
        """Batches of the process that has most of them."""
        return len(range(0, self.size, self.whole))

    def __iter__(self) -> Iterator[list[Draw]]:
        for start in self._starts():
            yield [Draw(0, index) for index in range(start, min(start + self.batch_size, self.size))]

    def _starts(self) -> range:
        return range(self.process * self.batch_size, self.size, self.whole)
