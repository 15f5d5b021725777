"""Progress of a comparison or a study in a terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dynaconv.analysis.runs import RunResult
from dynaconv.tasks.task import Metric
from dynaconv.train.records import EpochRecord

# With fewer columns only the words and the time left are shown: rich would cut the words off.
WIDE = len("12/18 condconv K=16, seed 12, epoch 100/100  0:00:00  left  0:00:00  ") + 24


class CompareBar:
    """One bar over all runs, with the time left; one line for every run that is done.

    The bar advances by work and not by steps: a step of a dynamic network counts by its measured time relative to a
    static one, so that the time left is right though the networks differ in speed.
    """

    def __init__(self, metric: Metric, place: Path, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False, markup=False)
        self._metric, self._place = metric, place
        self._progress = Progress(
            TextColumn("{task.description}"),
            *([BarColumn(bar_width=24), TimeElapsedColumn()] if self.console.width >= WIDE else []),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            refresh_per_second=4,
            speed_estimate_period=600,
        )
        self._task = TaskID(0)
        self._runs = self._number = 0
        self._run_began = 0.0

    def measuring(self, what: str) -> None:
        self.console.print(f"measuring: {what}")

    def start(self, runs: int, missing: int, work: float) -> None:
        self._runs, self._number = runs, runs - missing
        if missing < runs:
            self.console.print(f"{runs - missing} of {runs} runs are in {self._place} already", soft_wrap=True)
        self._task = self._progress.add_task("", total=work)
        if missing:
            self._progress.start()

    def waiting(self, runs: int) -> None:
        self.console.print(f"{runs} runs are left, and other processes are at them; waiting")

    def run(self, label: str, seed: int, work: float) -> RunProgress:
        self._number += 1
        self._run_began = time.monotonic()
        return RunProgress(self._progress, self._task, f"{self._number}/{self._runs} {label}, seed {seed}", work)

    def finished(self, label: str, result: RunResult) -> None:
        metric = self._metric
        shown = f"{metric.label} {result.value:.2f} %" if metric.percent else f"{metric.label} {result.value:.4f}"
        self.console.print(
            f"{self._number}/{self._runs} {label}, seed {result.seed}: {shown} "
            f"in {time.monotonic() - self._run_began:.0f} s"
        )

    def close(self) -> None:
        self._progress.stop()


class RunProgress:
    """Moves the comparison's bar by the steps of one run."""

    def __init__(self, progress: Progress, task: TaskID, name: str, work: float) -> None:
        self._progress, self._task, self._name, self._work = progress, task, name, work
        self._epochs = self._steps = 0
        self._before = progress.tasks[task].completed if progress.tasks else 0.0

    def start(self, epochs: int, steps_per_epoch: int, epoch: int, step: int, metrics: Sequence[Metric]) -> None:
        self._epochs, self._steps = epochs, steps_per_epoch
        self._show(epoch, step)

    def step(self, epoch: int, step: int, images: int, loss: float | None) -> None:
        self._show(epoch, step)

    def evaluating(self, epoch: int, batch: int, batches: int) -> None: ...

    def epoch(self, record: EpochRecord) -> None: ...

    def close(self) -> None: ...

    def _show(self, epoch: int, step: int) -> None:
        share = (epoch * self._steps + step) / (self._epochs * self._steps)
        self._progress.update(
            self._task,
            description=f"{self._name}, epoch {min(epoch + 1, self._epochs)}/{self._epochs}",
            completed=self._before + share * self._work,
        )
