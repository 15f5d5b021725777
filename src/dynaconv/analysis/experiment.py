"""``compare``: would dynamic convolution help this network on this data, and what would it cost?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dynaconv.analysis.arms import Arm, compared_arms
from dynaconv.analysis.comparison import Comparison, summarise
from dynaconv.analysis.engine import Costs, Nobody, Results, Watcher, check, train_all
from dynaconv.analysis.folder import CompareFolder
from dynaconv.analysis.measure import Measurement, measure
from dynaconv.analysis.report import write_all
from dynaconv.analysis.runs import open_for
from dynaconv.analysis.settings import CompareSettings, ExperimentSettings, versions
from dynaconv.tasks.task import TaskData
from dynaconv.train.accelerator import make_accelerator
from dynaconv.train.layout import with_layout


def compare(settings: CompareSettings, out: str | Path, watcher: Watcher | None = None) -> Comparison:
    """Train the static twin and its dynamic ones under one equal recipe, over several seeds, and compare them.

    Within a seed all networks see the same pictures in the same order with the same augmentation, and begin with the
    same weights where they have the same weights (:meth:`Arm.build`). Time and memory are measured before the
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
    arms = compared_arms(settings)
    data = open_for(settings, settings.seeds[0])
    costs = check(arms, settings, data)
    folder = CompareFolder(Path(out))
    with folder.held({**settings.facts(), **listing_of(data, settings)}):
        measured = _measure(folder, arms, settings, data, watcher)
        work = {arm.slug: one.step.ratio for arm, one in zip(arms, measured, strict=True)}
        results = train_all(folder, arms, settings, work, watcher)
        comparison = _summarise(arms, settings, data, costs, measured, results)
        write_all(comparison, folder)
    return comparison


def _measure(
    folder: CompareFolder, arms: list[Arm], settings: CompareSettings, data: TaskData, watcher: Watcher
) -> list[Measurement]:
    known = folder.measured(arms)
    if known is not None:
        return known
    networks = [arm.build(settings, data, settings.seeds[0]) for arm in arms]
    measured = measure(networks, data, settings.training, watcher.measuring)
    folder.keep_measured(arms, measured)
    return measured


def _summarise(
    arms: list[Arm],
    settings: CompareSettings,
    data: TaskData,
    costs: Costs,
    measured: list[Measurement],
    results: Results,
) -> Comparison:
    batch = batch_of(settings, data)
    static = results[arms[0].slug]
    rows = [
        summarise(settings.metric, arm, results[arm.slug], static, price, times, measured[0], batch)
        for arm, price, times in zip(arms, costs, measured, strict=True)
    ]
    return Comparison(
        backbone=settings.backbone,
        task=settings.task,
        metric=settings.metric,
        baseline=data.baseline(),
        data=data.description,
        test_images=static[0].test_images,
        image_size=data.image_size,
        batch_size=batch,
        seeds=settings.seeds,
        settings={**settings.model_dump(mode="json"), "augment": data.facts(settings.training).get("augment")},
        about=about(settings),
        rows=tuple(rows),
    )


def listing_of(data: TaskData, settings: ExperimentSettings) -> dict[str, Any]:
    """What tells the data apart; the augmentation stands in the settings."""
    return {name: value for name, value in data.facts(settings.training).items() if name != "augment"}


def batch_of(settings: ExperimentSettings, data: TaskData) -> int:
    """Images of one step: a data set smaller than a batch is one batch."""
    return min(settings.batch_size, data.train_size)


def about(settings: ExperimentSettings) -> dict[str, Any]:
    """What computed: versions, device, threads."""
    device = make_accelerator(settings.training).device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {**versions(), "device": name, "threads": torch.get_num_threads()}
