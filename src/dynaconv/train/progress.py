"""Progress of a run: none, or a bar in a terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from dynaconv.tasks.task import Metric
from dynaconv.train.records import EpochRecord

if TYPE_CHECKING:
    from rich.console import Console


class Progress(Protocol):
    """Is notified of the steps of a run; must not change anything."""

    def start(self, epochs: int, steps_per_epoch: int, epoch: int, step: int, metrics: Sequence[Metric]) -> None:
        """The run begins, or goes on, at this epoch and step; ``metrics`` are those of its records."""
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


WIDEST_DESCRIPTION = len("epoch 100/100 evaluating 100/100")


class Silent:
    """Shows nothing."""

    def start(self, epochs: int, steps_per_epoch: int, epoch: int, step: int, metrics: Sequence[Metric]) -> None: ...

    def step(self, epoch: int, step: int, images: int, loss: float | None) -> None: ...

    def evaluating(self, epoch: int, batch: int, batches: int) -> None: ...

    def epoch(self, record: EpochRecord) -> None: ...

    def close(self) -> None: ...


class Bar:
    """One bar over all steps of a run, with images/s and the time left; one line for every epoch."""

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            ProgressColumn,
            TaskID,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.console = console or Console(stderr=True)
        # As much as fits: rich would cut off the words of a row that is too wide.
        room = self.console.width - WIDEST_DESCRIPTION
        after: list[ProgressColumn] = [TextColumn("left"), TimeRemainingColumn()]
        if room >= len("1234/12345  1,234 img/s  0:00:00  left  0:00:00  ") + 8:
            after = [MofNCompleteColumn(), TextColumn("{task.fields[rate]:>10}"), TimeElapsedColumn(), *after]
            room -= len("1234/12345  1,234 img/s  0:00:00  ")
        room -= len("  left  0:00:00  ")
        self._progress = Progress(
            TextColumn("{task.description}"),
            *([BarColumn(bar_width=min(40, room))] if room >= 4 else []),
            *after,
            console=self.console,
            transient=True,
            refresh_per_second=4,
            speed_estimate_period=120,
        )
        self._steps = self._epochs = self._images = 0
        self._metrics: Sequence[Metric] = ()
        self._since = 0.0
        self._task = TaskID(0)

    def start(self, epochs: int, steps_per_epoch: int, epoch: int, step: int, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics
        self._epochs, self._steps = epochs, steps_per_epoch
        self._images, self._since = 0, time.monotonic()
        done = epoch * steps_per_epoch + step
        self._task = self._progress.add_task("", total=epochs * steps_per_epoch, completed=done, rate="")
        self._progress.start()

    def step(self, epoch: int, step: int, images: int, loss: float | None) -> None:
        self._images += images
        now = time.monotonic()
        if now - self._since < 0.5 and step < self._steps:
            return
        rate = self._images / max(now - self._since, 1e-9)
        self._images, self._since = 0, now
        self._progress.update(
            self._task,
            completed=epoch * self._steps + step,
            description=f"epoch {epoch + 1}/{self._epochs}" + ("" if loss is None else f" loss {loss:.3f}"),
            rate=f"{rate:,.0f} img/s",
        )

    def evaluating(self, epoch: int, batch: int, batches: int) -> None:
        self._progress.update(
            self._task, description=f"epoch {epoch + 1}/{self._epochs} evaluating {batch}/{batches}", rate=""
        )

    def epoch(self, record: EpochRecord) -> None:
        self._since, self._images = time.monotonic(), 0
        self.console.print(describe(record, self._epochs, self._metrics), highlight=False, soft_wrap=True)

    def close(self) -> None:
        self._progress.stop()


def describe(record: EpochRecord, epochs: int, metrics: Sequence[Metric]) -> str:
    """One line about an epoch."""
    parts = [f"epoch {record.epoch + 1}/{epochs}", f"loss {record.train_loss:.4f}"]
    shown = {metric.name: metric for metric in metrics}
    for name, value in record.metrics.items():
        parts.append(f"{name} {shown[name].text(value) if name in shown else format(value, '.4f')}")
    parts.append(f"lr {record.lr:.2g}")
    if record.temperature is not None:
        parts.append(f"temperature {record.temperature:.3g}")
    if record.routing_entropy:
        parts.append(f"routing entropy {sum(record.routing_entropy.values()) / len(record.routing_entropy):.3f}")
    parts.append(f"{record.images_per_second:,.0f} img/s")
    if record.dropped_steps:
        parts.append(f"{record.dropped_steps} steps dropped")
    if record.bad_images:
        parts.append(f"{record.bad_images} bad images")
    return "  ".join(parts)
