"""``dynaconv predict``."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from dynaconv.cli import options
from dynaconv.cli.options import Given, choice, takes
from dynaconv.cli.terminal import prepare
from dynaconv.errors import UserError, suggest

if TYPE_CHECKING:
    pass

FORMATS = ("csv", "json")


@takes(on=options.ON, opening=options.DATA.only("workers").default(workers=0))
def predict(
    *,
    run: Annotated[Path, Argument(help="A run's folder (its best weights) or a .safetensors file.")],
    images: Annotated[list[Path], Argument(help="Image files, and folders of them.")],
    top: Annotated[int, Option(min=1, help="Classes named for every image.")] = 5,
    out: Annotated[Path | None, Option(help="File to write (.csv or .json). Default: CSV on the terminal.")] = None,
    format: Annotated[str | None, choice(*FORMATS, help="csv or json; by default as --out ends.")] = None,
    batch_size: options.BatchSize = 64,
    threads: options.Threads = None,
    bad_images: Annotated[
        str,
        choice(
            "error", "skip", help="Unreadable images: 'error', or 'skip' to name them in the result with the reason."
        ),
    ] = "error",
    on: Given,
    opening: Given,
) -> None:
    """Classify images; every row names the file and its most probable classes."""
    from dynaconv.data import BadImages
    from dynaconv.files import write_text
    from dynaconv.tasks.classification.prediction import find_images
    from dynaconv.train.accelerator import make_accelerator
    from dynaconv.train.run_folder.weights import load_trained
    from dynaconv.train.settings import TrainSettings

    style = format or (out.suffix.lstrip(".") if out is not None else "csv")
    if style not in FORMATS:
        raise UserError(f"The format is {style!r}; expected csv or json. {suggest(style, FORMATS)}")
    settings = TrainSettings.of(on)
    prepare(threads)
    paths = find_images(images)
    trained = load_trained(run, settings)
    accelerator = make_accelerator(settings)
    policy = BadImages(bad_images, len(paths))
    batches = trained.task.file_batches(
        paths, batch_size=batch_size, workers=opening["workers"], bad_images=policy, device=accelerator.device
    )
    with accelerator.autocast():
        found = _classify(trained.model.to(accelerator.device), batches, trained.task, top)
    rows = [
        {"file": str(path), "error": policy.reasons.get(str(path)), "classes": found.get(index, [])}
        for index, path in enumerate(paths)
    ]
    text = json.dumps(rows, indent=2) + "\n" if style == "json" else _as_csv(rows, min(top, len(trained.classes)))
    if out is None:
        print(text, end="")
        return
    try:
        write_text(out, text)
    except OSError as error:
        raise UserError(f"Cannot write --out {out}: {error.strerror or error}.") from error


def _classify(model: Any, batches: Any, task: Any, top: int) -> dict[int, list[dict[str, Any]]]:
    import torch

    found: dict[int, list[dict[str, Any]]] = {}
    with torch.no_grad():
        for numbers, batch in batches:
            found.update(zip(numbers, task.predict(model, batch, top), strict=True))
    return found


def _as_csv(rows: list[dict[str, Any]], top: int) -> str:
    text = io.StringIO()
    ranks = [name for rank in range(1, top + 1) for name in (f"class_{rank}", f"probability_{rank}")]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", *ranks, "error"])
    for row in rows:
        cells = [cell for one in row["classes"] for cell in (one["class"], one["probability"])]
        writer.writerow([row["file"], *cells, *[""] * (2 * top - len(cells)), row["error"] or ""])
    return text.getvalue()
