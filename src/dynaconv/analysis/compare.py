"""``compare``: would dynamic convolution help this network on this data, and what would it cost?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dynaconv.analysis.comparison import Comparison, summarise
from dynaconv.analysis.contender import STATIC, Contender, contenders
from dynaconv.analysis.data import open_for
from dynaconv.analysis.folder import CompareFolder
from dynaconv.analysis.measure import Measurement, measure
from dynaconv.analysis.run import RunResult, forget_checkpoints, run_one
from dynaconv.analysis.settings import CompareSettings, versions
from dynaconv.analysis.watcher import Nobody, Watcher
from dynaconv.analysis.write import write_all
from dynaconv.counting import cost
from dynaconv.data import ImageData
from dynaconv.errors import UserError, blame_input
from dynaconv.train.accelerator import make_accelerator
from dynaconv.train.optimizer import build_optimizer

Costs = list[tuple[int, float]]


def compare(settings: CompareSettings, out: str | Path, watcher: Watcher | None = None) -> Comparison:
    """Train the static twin and its dynamic ones under one equal recipe, over several seeds, and compare them.

    Within a seed all networks see the same pictures in the same order with the same augmentation, and begin with the
    same weights where they have the same weights (:meth:`Contender.build`). Time and memory are measured before the
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
    chosen = contenders(settings)
    data = open_for(settings, settings.seeds[0])
    costs = check(chosen, settings, data)
    folder = CompareFolder(Path(out))
    with folder.held(settings.facts()):
        measured = _measure(folder, chosen, settings, data, watcher)
        results = _train(folder, chosen, settings, data, measured, watcher)
        comparison = _summarise(chosen, settings, data, costs, measured, results)
        write_all(comparison, folder)
    return comparison


def check(chosen: Sequence[Contender], settings: CompareSettings, data: ImageData) -> Costs:
    """Build every network once and count it, so that mistakes show before anything is written."""
    answer = []
    for contender in chosen:
        network = contender.build(settings, data, settings.seeds[0])
        build_optimizer(network, settings.training)
        with blame_input():
            report = cost(network, (data.channels, data.image_size, data.image_size))
        answer.append((report.parameters.total, report.total))
    if data.eval_size < 2:
        raise UserError(f"{data.name} has {data.eval_size} test images; expected at least 2.")
    return answer


def _measure(
    folder: CompareFolder, chosen: list[Contender], settings: CompareSettings, data: ImageData, watcher: Watcher
) -> list[Measurement]:
    known = folder.measured(chosen)
    if known is not None:
        return known
    networks: list[nn.Module] = [contender.build(settings, data, settings.seeds[0]) for contender in chosen]
    measured = measure(
        networks, len(data.classes), data.image_size, _batch(settings, data), settings.training, watcher.measuring
    )
    folder.keep_measured(chosen, measured)
    return measured


def _train(
    folder: CompareFolder,
    chosen: list[Contender],
    settings: CompareSettings,
    data: ImageData,
    measured: list[Measurement],
    watcher: Watcher,
) -> dict[Contender, list[RunResult]]:
    """All results, training what is missing; seed by seed, so that a comparison stopped early holds whole pairs."""
    results: dict[Contender, list[RunResult]] = {contender: [] for contender in chosen}
    runs = [(contender, seed) for seed in settings.seeds for contender in chosen]
    missing = [run for run in runs if folder.result(*run) is None]
    work = {contender: one.step.ratio for contender, one in zip(chosen, measured, strict=True)}
    watcher.start(len(runs), len(missing), sum(work[contender] for contender, _ in missing))
    try:
        for contender, seed in runs:
            result = folder.result(contender, seed)
            if result is None:
                result = _run(folder, contender, seed, settings, work[contender], watcher)
            results[contender].append(result)
    finally:
        watcher.close()
    return results


def _run(
    folder: CompareFolder, contender: Contender, seed: int, settings: CompareSettings, work: float, watcher: Watcher
) -> RunResult:
    place = folder.run_folder(contender, seed)
    result = run_one(contender, seed, settings, place, watcher.run(contender.label, seed, work))
    folder.keep_result(contender, result)
    forget_checkpoints(place)
    watcher.finished(contender.label, result)
    return result


def _summarise(
    chosen: list[Contender],
    settings: CompareSettings,
    data: ImageData,
    costs: Costs,
    measured: list[Measurement],
    results: dict[Contender, list[RunResult]],
) -> Comparison:
    batch = _batch(settings, data)
    rows = [
        summarise(contender, results[contender], results[STATIC], price, times, measured[0], batch)
        for contender, price, times in zip(chosen, costs, measured, strict=True)
    ]
    return Comparison(
        backbone=settings.backbone,
        data=data.description,
        test_images=results[STATIC][0].test_images,
        image_size=data.image_size,
        batch_size=batch,
        seeds=settings.seeds,
        settings={
            **settings.model_dump(mode="json"),
            "augment": data.resolve(settings.training.augment).model_dump(mode="json"),
        },
        about=_about(settings),
        rows=tuple(rows),
    )


def _batch(settings: CompareSettings, data: ImageData) -> int:
    return min(settings.batch_size, data.train_size)


def _about(settings: CompareSettings) -> dict[str, Any]:
    device = make_accelerator(settings.training).device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {**versions(), "device": name, "threads": torch.get_num_threads()}
