"""``dynaconv predict``."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from dynaconv.cli import options
from dynaconv.cli.options import Given, assignments, choice, takes
from dynaconv.cli.terminal import prepare
from dynaconv.cli.trained import find_trained
from dynaconv.errors import UserError, cannot_write, suggest

if TYPE_CHECKING:
    from dynaconv.tasks.task import Task

FORMATS = ("csv", "json")


@takes(on=options.ON, opening=options.DATA.only("workers").default(workers=0))
def predict(
    *,
    run: options.Run,
    images: Annotated[list[Path], Argument(help="Image files, and folders of them.")],
    top: Annotated[
        int | None, Option(min=1, help="Classes named for every image (default: 5), or boxes at most.")
    ] = None,
    min_score: Annotated[
        float | None, Option(min=0, max=1, help="Least score of a box that is reported. Default: 0.3.")
    ] = None,
    out: Annotated[Path | None, Option(help="File to write (.csv or .json). Default: CSV on the terminal.")] = None,
    format: Annotated[str | None, choice(*FORMATS, help="csv or json; by default as --out ends.")] = None,
    draw: Annotated[
        Path | None, Option(help="Folder for copies of the images with what was found drawn on them.")
    ] = None,
    data_arg: options.DataArg = None,
    batch_size: options.BatchSize = 64,
    threads: options.Threads = None,
    bad_images: Annotated[
        str,
        choice(
            "error", "skip", help="Unreadable images: 'error', or 'skip' to name them in the result with the reason."
        ),
    ] = "error",
    model: options.Model = None,
    weights: options.Weights = None,
    pretrained: options.Published = False,
    classes: Annotated[
        Path | None, Option(help="Names of the classes, one a line, for a network that has none; else numbers.")
    ] = None,
    image_size: options.ImageSize = None,
    arg: options.Arg = None,
    on: Given,
    opening: Given,
) -> None:
    """Show images to a trained network; the result names every file and what was found in it."""
    from dynaconv.data import BadImages
    from dynaconv.files import check_writable, write_output
    from dynaconv.tasks import call_with_options
    from dynaconv.tasks.classification.prediction import find_images
    from dynaconv.tasks.task import TaskOptions
    from dynaconv.train.accelerator import make_accelerator
    from dynaconv.train.layout import with_layout
    from dynaconv.train.settings import LoopSettings

    style = format or (out.suffix.lstrip(".") if out is not None else "csv")
    if style not in FORMATS:
        raise UserError(f"The format is {style!r}; expected csv or json. {suggest(style, FORMATS)}")
    if out is not None:
        try:
            check_writable(out)
        except OSError as error:
            raise cannot_write(f"--out {out}", error) from error
    settings = LoopSettings.of(on)
    prepare(threads)
    paths = find_images(images)
    accelerator = make_accelerator(settings)
    settings = with_layout(settings, accelerator.device)
    trained = find_trained(
        run,
        TaskOptions(channels_last=settings.channels_last),
        model=model,
        weights=weights,
        pretrained=pretrained,
        image_size=image_size,
        arguments=assignments("--arg", arg),
        classes=classes,
    )
    task, called = trained.task, f"the task {trained.task.name}"
    policy = BadImages(bad_images, len(paths))
    batches = call_with_options(
        task.file_batches,
        called,
        paths,
        batch_size=batch_size,
        workers=opening["workers"],
        bad_images=policy,
        device=accelerator.device,
        **assignments("--data-arg", data_arg),
    )
    network = trained.model.to(accelerator.device)
    chosen = {"top": top, "min_score": min_score}
    with accelerator.autocast():
        found = _found(batches, lambda batch: call_with_options(task.predict, called, network, batch, **chosen))
    per_file = [found.get(index, []) for index in range(len(paths))]
    reasons = [policy.reasons.get(str(path)) for path in paths]
    if draw is not None:
        _draw(draw, paths, per_file, reasons, task)
    if style == "json":
        rows = [
            {"file": str(path), "error": reason, task.predictions_key: predictions}
            for path, reason, predictions in zip(paths, reasons, per_file, strict=True)
        ]
        text = json.dumps(rows, indent=2) + "\n"
    else:
        text = _as_csv(paths, reasons, *task.table(per_file))
    if out is None:
        print(text, end="")
        return
    try:
        write_output(out, text)
    except OSError as error:
        raise cannot_write(f"--out {out}", error) from error


def _found(batches: Any, predict: Callable[[Any], list[list[Any]]]) -> dict[int, list[Any]]:
    """By the file's number, what was found in all its examples."""
    import torch

    found: dict[int, list[Any]] = {}
    with torch.no_grad():
        for numbers, batch in batches:
            for number, predictions in zip(numbers, predict(batch), strict=True):
                found.setdefault(number, []).extend(predictions)
    return found


def _as_csv(paths: list[Path], reasons: list[str | None], columns: list[str], cells_of: list[list[list[Any]]]) -> str:
    """A line for every row of a file; one without any, for a file in which nothing was found or that is unreadable."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", *columns, "error"])
    for path, reason, rows in zip(paths, reasons, cells_of, strict=True):
        for cells in rows or [[]]:
            writer.writerow([path, *cells, *[""] * (len(columns) - len(cells)), reason or ""])
    return text.getvalue()


def _draw(folder: Path, paths: list[Path], found: list[list[Any]], reasons: list[str | None], task: Task) -> None:
    """Write each readable image with its predictions to ``folder/NAME.png``; names that occur twice get a number."""
    from dynaconv.data import decode

    taken: set[str] = set()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, (path, predictions, reason) in enumerate(zip(paths, found, reasons, strict=True)):
            if reason is not None:
                continue
            name = path.stem if path.stem not in taken else f"{path.stem}-{number}"
            taken.add(name)
            task.draw(decode(path), predictions).save(folder / f"{name}.png")
    except OSError as error:
        raise cannot_write(f"into --draw {folder}", error) from error
