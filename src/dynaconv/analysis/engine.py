"""The engine of experiments: arms are checked and counted, and every arm is trained with every seed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from dynaconv.analysis.arms import Arm
from dynaconv.analysis.comparison import Price
from dynaconv.analysis.runs import RunResult, forget_checkpoints, run_one
from dynaconv.analysis.settings import ExperimentSettings
from dynaconv.counting import cost
from dynaconv.errors import UserError, blame_input
from dynaconv.models import countable
from dynaconv.tasks.network import height_and_width
from dynaconv.tasks.task import TaskData
from dynaconv.train.optimizer import build_optimizer
from dynaconv.train.progress import Progress
from dynaconv.train.sanity import check_experts, check_losses, check_sizes

Costs = list[Price]
Results = dict[str, list[RunResult]]
"""By the arm's slug, in the order of the seeds."""

POLL = 2.0  # seconds between looks at the runs of other processes


class Store(Protocol):
    """Where results are kept, and which process does which run."""

    def run_folder(self, arm: Arm, seed: int) -> Path:
        """The folder of one run."""
        ...

    def result(self, arm: Arm, seed: int) -> RunResult | None:
        """A finished run's result."""
        ...

    def keep_result(self, arm: Arm, result: RunResult) -> None:
        """Write a run's result."""
        ...

    def copy_result(self, arm: Arm, twin: Arm, result: RunResult) -> None:
        """Write the result of an equal arm as this one's."""
        ...

    def claim(self, arm: Arm, seed: int) -> AbstractContextManager[bool]:
        """Claim a run as long as the context lasts; it is False if another process has claimed it."""
        ...


class Watcher(Protocol):
    """Is notified of the steps of an experiment; must not change anything."""

    def measuring(self, what: str) -> None:
        """A measurement begins."""
        ...

    def start(self, runs: int, missing: int, work: float) -> None:
        """The training begins: the number of all runs, of those to be done, and their work (a static run is 1)."""
        ...

    def waiting(self, runs: int) -> None:
        """All missing runs are being done by other processes; so many are left."""
        ...

    def run(self, label: str, seed: int, work: float) -> Progress | None:
        """A run begins; return an object to be notified of its steps, or None."""
        ...

    def finished(self, label: str, result: RunResult) -> None:
        """A run is done and its result kept."""
        ...

    def close(self) -> None:
        """The training is over, by itself or by an error."""
        ...


class Nobody:
    """Nobody watches."""

    def measuring(self, what: str) -> None: ...

    def start(self, runs: int, missing: int, work: float) -> None: ...

    def waiting(self, runs: int) -> None: ...

    def run(self, label: str, seed: int, work: float) -> Progress | None:
        return None

    def finished(self, label: str, result: RunResult) -> None: ...

    def close(self) -> None: ...


def check(arms: Sequence[Arm], settings: ExperimentSettings, data: TaskData) -> Costs:
    """Build every network once and count it, so that mistakes are found before anything is written.

    Returns:
        the price of every arm.
    """
    costs = []
    check_experts([arm.model.experts for arm in arms])
    for number, arm in enumerate(arms):
        recipe = arm.recipe(settings, settings.seeds[0])
        network = arm.build(settings, data, settings.seeds[0])
        if number == 0:
            check_sizes(network, data, accumulate=recipe.accumulate)
        build_optimizer(network, recipe)
        with blame_input():
            report = cost(countable(network), (3, *height_and_width(data.image_size)))
        costs.append(Price(report.parameters.total, report.total, report.mixing / report.total))
    if data.eval_size < 2:
        raise UserError(f"{data.name} has {data.eval_size} test images; expected at least 2.")
    return costs


def train_all(
    store: Store,
    arms: Sequence[Arm],
    settings: ExperimentSettings,
    work: Mapping[str, float],
    watcher: Watcher,
) -> Results:
    """All results; missing runs are trained, seed by seed, so that a stopped experiment has complete pairs.

    A run that another process has claimed is left to it. In the end this process waits for such runs, and takes up
    those that were left unfinished.

    Args:
        work: of a run of every arm, by its slug, for the progress.
    """
    runs = [(arm, seed) for seed in settings.seeds for arm in arms]
    missing = [run for run in runs if store.result(*run) is None]
    watcher.start(len(runs), len(missing), sum(work[arm.slug] for arm, _ in missing))
    told = len(missing) + 1
    try:
        while missing:
            did_one = False
            for arm, seed in missing:
                equals = [other for other in arms if other.same_as(arm)]
                did_one |= _claimed_run(store, arm, seed, settings, work[arm.slug], watcher, equals)
            missing = [run for run in missing if store.result(*run) is None]
            if missing and not did_one:
                if len(missing) < told:
                    told = len(missing)
                    watcher.waiting(told)
                time.sleep(POLL)
    finally:
        watcher.close()
    return {arm.slug: [_there(store, arm, seed) for seed in settings.seeds] for arm in arms}


def _claimed_run(
    store: Store,
    arm: Arm,
    seed: int,
    settings: ExperimentSettings,
    work: float,
    watcher: Watcher,
    equals: Sequence[Arm],
) -> bool:
    """Do one run unless it is done, or another process is at it; return whether it was done here.

    Arms that are the same (``equals``, with this one; :meth:`Arm.same_as`) are claimed together, by the first one's
    name: the result of one is taken for the others.
    """
    with store.claim(equals[0], seed) as mine:
        if not mine or store.result(arm, seed) is not None:
            return False
        for twin in equals:
            if (known := store.result(twin, seed)) is not None:
                store.copy_result(arm, twin, known)
                watcher.finished(f"{arm.label} (the same as {twin.label})", known)
                return True
        place = store.run_folder(arm, seed)
        result = run_one(arm, seed, settings, place, watcher.run(arm.label, seed, work))
        store.keep_result(arm, result)
    forget_checkpoints(place)
    check_losses(result.train_loss, f"{arm.label}, seed {seed}")
    watcher.finished(arm.label, result)
    return True


def _there(store: Store, arm: Arm, seed: int) -> RunResult:
    result = store.result(arm, seed)
    assert result is not None
    return result
