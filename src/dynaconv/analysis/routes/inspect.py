"""``inspect_run``: run a trained network over a data set and look at its routing; ``write_inspection``: the files."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dynaconv.analysis.routes.data_pass import DataPass
from dynaconv.analysis.routes.figures import draw_all
from dynaconv.analysis.routes.page import page
from dynaconv.analysis.routes.report import Inspection, InspectSettings
from dynaconv.analysis.routes.samples import fill_samples
from dynaconv.errors import UserError, blame_input, cannot_write, suggest
from dynaconv.files import HashingFile, write_text, write_whole
from dynaconv.inspection import routers_of
from dynaconv.tasks.classification.prediction import evaluation_source
from dynaconv.tasks.classification.source import Source, Subset
from dynaconv.tasks.task import TaskOptions
from dynaconv.train.run_folder.weights import Trained, load_trained

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RECORDING = "routing.parquet"


def inspect_run(
    run: Path,
    out: Path,
    settings: InspectSettings,
    watch: Callable[[str, int, int], None] | None = None,
    function: str | None = None,
) -> Inspection:
    """:func:`inspect_trained` for a run's folder (its best weights) or a weights file.

    Args:
        function: ``path/to/file.py:function`` that builds the network, where it is one of the user's own.
    """
    options = TaskOptions(channels_last=settings.channels_last)
    return inspect_trained(load_trained(run, options, function), out, settings, watch)


def inspect_trained(
    trained: Trained,
    out: Path,
    settings: InspectSettings,
    watch: Callable[[str, int, int], None] | None = None,
) -> Inspection:
    """Record the routing of a trained classifier over a data set into ``out/routing.parquet``, and its statistics.

    Args:
        out: folder, made if it is not there.
        watch: told what is being done, and how many images of how many are.

    Raises:
        UserError: no dynamic layer; the task has no classes; other classes; no image; routing that is not finite.
    """
    from dynaconv.train.accelerator import make_accelerator
    from dynaconv.train.settings import LoopSettings

    on = {"device": settings.device, "amp": settings.amp, "channels_last": settings.channels_last}
    loop = LoopSettings.of(on)
    _check(trained)
    unknown = [name for name in settings.figure_classes if name not in trained.classes]
    if unknown:
        raise UserError(
            f"--classes {unknown[0]!r}: the network has no such class. {suggest(unknown[0], trained.classes)}"
        )
    source = _source(trained, settings)
    accelerator = make_accelerator(loop)
    model = trained.model.to(accelerator.device)
    with blame_input():
        out.mkdir(parents=True, exist_ok=True)
    network_pass = DataPass(trained, model, source, settings, accelerator, watch or (lambda *_: None))
    inspection = network_pass.over(out / RECORDING)
    fill_samples(inspection.samples, out / RECORDING, source)
    return inspection


def _check(trained: Trained) -> None:
    if trained.task.name != "classification":
        raise UserError(
            f"{trained.path} is of the task {trained.task.name}; inspect is for classification, whose images have "
            "classes. dynaconv.record_routing(model) records the routing of any network."
        )
    try:
        routers_of(trained.model)
    except ValueError as error:
        name = trained.about.get("model", {}).get("name", "the network")
        raise UserError(
            f"{trained.path} is {name} with ordinary layers: it has no dynamic layer, so there is no routing to look "
            "at. Train with --method dynamic or --method condconv, or one of the papers' networks ('dynaconv list')."
        ) from error


def _source(trained: Trained, settings: InspectSettings) -> Source:
    source = evaluation_source(
        settings.data,
        trained.classes,
        everything=settings.everything,
        root=settings.data_root,
        eval_split=settings.eval_split,
    )
    if settings.limit is not None and settings.limit < len(source):
        rows = np.random.default_rng(settings.seed).permutation(len(source))[: settings.limit]
        source = Subset(source, sorted(int(row) for row in rows))
    return source


def write_inspection(found: Inspection, folder: Path) -> list[Path]:
    """Write ``inspect.json``, ``inspect.html`` and the figures (PNG and SVG); return all files, the recording too.

    Raises:
        UserError: the folder cannot be written.
        RunError: the disk is full.
    """
    written = [folder / "inspect.html", folder / "inspect.json", folder / RECORDING]
    try:
        write_text(written[1], json.dumps(found.plain(), indent=1, allow_nan=False) + "\n")
        write_text(written[0], page(found))
        for name, figure in draw_all(found):
            for ending in ("png", "svg"):
                path = folder / f"{name}.{ending}"
                write_whole(path, partial(_save, figure, ending))
                written.append(path)
    except OSError as error:
        raise cannot_write(f"into {folder}", error) from error
    return written


def _save(figure: Figure, ending: str, file: HashingFile) -> None:
    made = io.BytesIO()
    figure.savefig(made, format=ending, dpi=150, metadata={"Date": None} if ending == "svg" else None)
    file.write(made.getvalue())
