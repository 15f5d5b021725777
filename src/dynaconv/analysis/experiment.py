"""``compare``: would dynamic convolution help this network on this data, and what would it cost?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from dynaconv.analysis.comparison import Comparison, Price, summarise
from dynaconv.analysis.folder import CompareFolder
from dynaconv.analysis.measure import Measurement, measure
from dynaconv.analysis.report import write_all
from dynaconv.analysis.runs import RunResult, forget_checkpoints, open_for, run_one
from dynaconv.analysis.settings import CompareSettings, versions
from dynaconv.analysis.variants import STATIC, Variant, variants
from dynaconv.counting import cost
from dynaconv.errors import UserError, blame_input
from dynaconv.models import countable
from dynaconv.tasks.network import height_and_width
from dynaconv.tasks.task import TaskData
from dynaconv.train.accelerator import make_accelerator
from dynaconv.train.layout import with_layout
from dynaconv.train.optimizer import build_optimizer
from dynaconv.train.progress import Progress
from dynaconv.train.sanity import check_experts, check_losses, check_sizes

Costs = list[Price]


class Watcher(Protocol):
    """Is notified of the steps of a comparison; must not change anything."""

    def measuring(self, what: str) -> None:
        """A measurement begins."""
        ...

    def start(self, runs: int, missing: int, work: float) -> None:
        """The training begins: the number of all runs, of those to be done, and their work (a static run is 1)."""
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

    def run(self, label: str, seed: int, work: float) -> Progress | None:
        return None

    def finished(self, label: str, result: RunResult) -> None: ...

    def close(self) -> None: ...


def compare(settings: CompareSettings, out: str | Path, watcher: Watcher | None = None) -> Comparison:
    """Train the static twin and its dynamic ones under one equal recipe, over several seeds, and compare them.

    Within a seed all networks see the same pictures in the same order with the same augmentation, and begin with the
    same weights where they have the same weights (:meth:`Variant.build`). Time and memory are measured before the
    training, network beside network (:mod:`dynaconv.analysis.measure`).

    Everything is kept in ``out``: runs that are there already are not repeated, a run that was stopped goes on from its
    last checkpoint. Methods, experts and seeds may be added later.

    Args:
        settings: what to compare, and how.
        out: the folder (:class:`CompareFolder` says what it will hold).
        watcher: told of every run and step.

    Raises:
        UserError: unknown network, data set or optimizer; unusable data; ``out`` is in use, cannot be written, or holds
            a comparison with other settings. Nothing has been written then.
        RunError: stopped by a signal, disk full, loss not finite. The same call goes on.
    """
    watcher = watcher or Nobody()
    training = with_layout(settings.training, make_accelerator(settings.training).device)
    settings = settings.model_copy(update={"training": training})
    chosen = variants(settings)
    data = open_for(settings, settings.seeds[0])
    costs = check(chosen, settings, data)
    folder = CompareFolder(Path(out))
    with folder.held({**settings.facts(), **_listing(data, settings)}):
        measured = _measure(folder, chosen, settings, data, watcher)
        results = _train(folder, chosen, settings, data, measured, watcher)
        comparison = _summarise(chosen, settings, data, costs, measured, results)
        write_all(comparison, folder)
    return comparison


def check(chosen: Sequence[Variant], settings: CompareSettings, data: TaskData) -> Costs:
    """Build every network once and count it, so that mistakes are found before anything is written."""
    costs = []
    check_experts([variant.experts for variant in chosen])
    for variant in chosen:
        network = variant.build(settings, data, settings.seeds[0])
        if variant.experts is None:
            check_sizes(network, data, accumulate=settings.training.accumulate)
        build_optimizer(network, settings.training)
        with blame_input():
            report = cost(countable(network), (3, *height_and_width(data.image_size)))
        costs.append(Price(report.parameters.total, report.total, report.mixing / report.total))
    if data.eval_size < 2:
        raise UserError(f"{data.name} has {data.eval_size} test images; expected at least 2.")
    return costs


def _measure(
    folder: CompareFolder, chosen: list[Variant], settings: CompareSettings, data: TaskData, watcher: Watcher
) -> list[Measurement]:
    known = folder.measured(chosen)
    if known is not None:
        return known
    networks: list[nn.Module] = [variant.build(settings, data, settings.seeds[0]) for variant in chosen]
    measured = measure(networks, data, settings.training, watcher.measuring)
    folder.keep_measured(chosen, measured)
    return measured


def _train(
    folder: CompareFolder,
    chosen: list[Variant],
    settings: CompareSettings,
    data: TaskData,
    measured: list[Measurement],
    watcher: Watcher,
) -> dict[Variant, list[RunResult]]:
    """All results; missing runs are trained, seed by seed, so that a stopped comparison has complete pairs."""
    results: dict[Variant, list[RunResult]] = {variant: [] for variant in chosen}
    runs = [(variant, seed) for seed in settings.seeds for variant in chosen]
    missing = [run for run in runs if folder.result(*run) is None]
    work = {variant: one.step.ratio for variant, one in zip(chosen, measured, strict=True)}
    watcher.start(len(runs), len(missing), sum(work[variant] for variant, _ in missing))
    try:
        for variant, seed in runs:
            result = folder.result(variant, seed)
            if result is None:
                result = _run(folder, variant, seed, settings, work[variant], watcher)
            results[variant].append(result)
    finally:
        watcher.close()
    return results


def _run(
    folder: CompareFolder, variant: Variant, seed: int, settings: CompareSettings, work: float, watcher: Watcher
) -> RunResult:
    place = folder.run_folder(variant, seed)
    result = run_one(variant, seed, settings, place, watcher.run(variant.label, seed, work))
    folder.keep_result(variant, result)
    forget_checkpoints(place)
    check_losses(result.train_loss, f"{variant.label}, seed {seed}")
    watcher.finished(variant.label, result)
    return result


def _summarise(
    chosen: list[Variant],
    settings: CompareSettings,
    data: TaskData,
    costs: Costs,
    measured: list[Measurement],
    results: dict[Variant, list[RunResult]],
) -> Comparison:
    batch = _batch(settings, data)
    rows = [
        summarise(settings.metric, variant, results[variant], results[STATIC], price, times, measured[0], batch)
        for variant, price, times in zip(chosen, costs, measured, strict=True)
    ]
    return Comparison(
        backbone=settings.backbone,
        task=settings.task,
        metric=settings.metric,
        baseline=data.baseline(),
        data=data.description,
        test_images=results[STATIC][0].test_images,
        image_size=data.image_size,
        batch_size=batch,
        seeds=settings.seeds,
        settings={**settings.model_dump(mode="json"), "augment": data.facts(settings.training).get("augment")},
        about=_about(settings),
        rows=tuple(rows),
    )


def _listing(data: TaskData, settings: CompareSettings) -> dict[str, Any]:
    """What tells the data apart; the augmentation stands in the settings."""
    return {name: value for name, value in data.facts(settings.training).items() if name != "augment"}


def _batch(settings: CompareSettings, data: TaskData) -> int:
    return min(settings.batch_size, data.train_size)


def _about(settings: CompareSettings) -> dict[str, Any]:
    device = make_accelerator(settings.training).device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {**versions(), "device": name, "threads": torch.get_num_threads()}
