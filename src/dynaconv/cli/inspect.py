"""``dynaconv inspect``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from dynaconv.cli import options
from dynaconv.cli.options import Given, assignments, takes
from dynaconv.cli.terminal import prepare, sentences, table, width
from dynaconv.cli.trained import find_trained
from dynaconv.errors import UserError

if TYPE_CHECKING:
    from dynaconv.analysis.routes import Inspection

SETTINGS = "dynaconv.analysis.routes:InspectSettings"


@takes(
    on=options.ON.default(SETTINGS),
    opening=options.DATA.only("workers", "bad_images", "max_bad_images", "data_root", "eval_split").default(workers=2),
)
def inspect(
    *,
    run: options.Run,
    data: Annotated[str, Option(help="As in 'dynaconv train'; the images of its evaluation split are looked at.")],
    out: Annotated[Path | None, Option(help="Folder of the results. Default: inspect/ in the run's folder.")] = None,
    everything: Annotated[bool, Option("--all", help="Look at every image below a folder of classes.")] = False,
    limit: Annotated[int | None, Option(min=1, help="Look at that many images only, drawn at random.")] = None,
    shown: Annotated[int, Option(min=1, max=1000, help="Images that can be picked on the page.")] = 60,
    classes: Annotated[
        str | None, Option(help="Classes in the figures, separated by commas. Default: four of them.")
    ] = None,
    intervene: Annotated[
        bool,
        Option("--intervene", help="Measure accuracy with other routing weights: Chen et al. 2020, Tables 3 and 4."),
    ] = False,
    seed: Annotated[int, Option(min=0, help="Of the images of --limit and the shuffles of --intervene.")] = 0,
    batch_size: options.BatchSize = 64,
    threads: options.Threads = None,
    as_json: Annotated[bool, Option("--json", help="Print inspect.json instead of the table.")] = False,
    quiet: options.Quiet = False,
    model: options.Model = None,
    weights: options.Weights = None,
    pretrained: options.Published = False,
    image_size: options.ImageSize = None,
    arg: options.Arg = None,
    on: Given,
    opening: Given,
) -> None:
    """Look at what the routers of a trained network do: which experts it uses, for which classes, image by image.

    Writes a page to open in a browser (inspect.html), the figures, the statistics (inspect.json) and the routing
    weights of every layer for every image (routing.parquet).
    """
    from dynaconv.analysis.routes import InspectSettings, inspect_trained, write_inspection
    from dynaconv.tasks.task import TaskOptions

    _one_process()
    prepare(threads)
    settings = InspectSettings.of(
        {
            "data": data,
            "everything": everything,
            "limit": limit,
            "shown": shown,
            "figure_classes": tuple(name.strip() for name in (classes or "").split(",") if name.strip()),
            "intervene": intervene,
            "seed": seed,
            "batch_size": batch_size,
            **opening,
            **on,
        }
    )
    trained = find_trained(
        run,
        TaskOptions(channels_last=settings.channels_last),
        data=data,
        opening={"root": settings.data_root, "eval_split": settings.eval_split},
        model=model,
        weights=weights,
        pretrained=pretrained,
        image_size=image_size,
        arguments=assignments("--arg", arg),
    )
    folder = out or (trained.path.parent if trained.path.is_file() else Path()) / "inspect"
    found = inspect_trained(trained, folder, settings, None if quiet else _bar())
    files = write_inspection(found, folder)
    print(json.dumps(found.plain(), indent=2) if as_json else _text(found, [str(file) for file in files]))


def _text(found: Inspection, files: list[str]) -> str:
    from dynaconv.analysis.routes.words import HEADINGS, cells, intervention_tables, summary

    columns = width()
    rows = [cells(router) for router in found.routers]
    parts = [table(HEADINGS, rows, right=range(2, len(HEADINGS)), columns=columns)]
    parts += [table(header, body, right=right, columns=columns) for header, body, right in intervention_tables(found)]
    parts.append(sentences(summary(found), columns))
    parts.append("\n".join(files))
    return "\n\n".join(parts)


def _one_process() -> None:
    import os

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("inspect runs in one process; start it without torchrun.")


class _bar:  # noqa: N801 - called as the function that it stands for
    """A bar on standard error where that is a terminal."""

    def __init__(self) -> None:
        import sys

        self.shown = sys.stderr.isatty()
        self.last = ""

    def __call__(self, what: str, done: int, images: int) -> None:
        import sys

        if self.shown:
            end = "\n" if done >= images else ""
            print(f"\r\033[K{what}: {done} of {images} images", end=end, file=sys.stderr, flush=True)
