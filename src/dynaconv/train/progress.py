"""Who watches a run."""

from __future__ import annotations

from typing import Protocol

from dynaconv.train.record import EpochRecord


class Progress(Protocol):
    """Told what happens; must not change anything."""

    def start(self, epochs: int, steps_per_epoch: int, epoch: int, step: int) -> None:
        """The run begins, or goes on, at this epoch and step."""
        ...

    def step(self, epoch: int, step: int, images: int, loss: float | None) -> None:
        """A step is done: ``step`` of them in this epoch. ``loss`` is given now and then (reading it costs time)."""
        ...

    def evaluating(self, epoch: int, batch: int, batches: int) -> None:
        """An evaluation batch is done."""
        ...

    def epoch(self, record: EpochRecord) -> None:
        """An epoch is done."""
        ...

    def close(self) -> None:
        """The run is over, by itself or by an error."""
        ...


class Silent:
    """Nobody watches."""

    def start(self, epochs: int, steps_per_epoch: int, epoch: int, step: int) -> None: ...

    def step(self, epoch: int, step: int, images: int, loss: float | None) -> None: ...

    def evaluating(self, epoch: int, batch: int, batches: int) -> None: ...

    def epoch(self, record: EpochRecord) -> None: ...

    def close(self) -> None: ...
