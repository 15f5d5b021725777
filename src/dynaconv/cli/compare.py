"""``dynaconv compare``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from dynaconv.cli import options
from dynaconv.cli.options import Given, assignments, takes
from dynaconv.cli.terminal import prepare, sentences, table, width
from dynaconv.errors import UserError

if TYPE_CHECKING:
    from dynaconv.analysis import CompareSettings, Comparison

MOST_WORKERS = 4
SETTINGS = "dynaconv.analysis.settings:CompareSettings"


@takes(
    sizes=options.SIZES.default(SETTINGS),
    training=options.TRAINING.default("dynaconv.analysis.settings:RECIPE"),
    network=options.NETWORK.only("share").default(SETTINGS),
    opening=options.DATA.only("workers", "bad_images", "data_root", "train_split", "eval_split", "download"),
)
def compare(
    *,
    backbone: Annotated[str | None, Argument(help=f"A network: {options.NETWORKS}. Default: test_resnet.")] = None,
    data: Annotated[str, Option(help=options.DATA_NAMES)] = "digits",
    methods: Annotated[
        str, Option(help="Separated by commas: dynamic, condconv. The static twin always runs.")
    ] = "dynamic,condconv",
    experts: Annotated[
        str | None, Option(help="K, or several separated by commas. Default: the papers' 4 and 8.")
    ] = None,
    seeds: Annotated[str, Option(help="How many (0, 1, ...), or which, separated by commas: '3' or '7,8,9'.")] = "3",
    out: Annotated[
        Path | None, Option(help="Folder of the results. Default: runs/compare-..., named after the settings.")
    ] = None,
    as_json: Annotated[bool, Option("--json", help="Print compare.json instead of the table.")] = False,
    crop_pct: Annotated[float | None, Option(help="Share of the picture that evaluation crops.")] = None,
    train_images: Annotated[int | None, Option(help="Train on that many images only, all classes alike.")] = None,
    pretrained: options.Pretrained = False,
    weights: options.Weights = None,
    arg: options.Arg = None,
    setting: options.Set = None,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
    sizes: Given,
    training: Given,
    network: Given,
    opening: Given,
) -> None:
    """Would dynamic convolution help a network, and what would it cost?

    Trains the static network and its dynamic twins under one equal recipe, over several seeds. Stop it at any moment;
    the same command goes on.
    """
    from dynaconv.analysis import compare as run_comparison
    from dynaconv.analysis.settings import DEFAULT_BACKBONE, RECIPE, CompareSettings, annealing_epochs
    from dynaconv.train import TrainSettings

    _one_process()
    chosen = {**training, **assignments("--set", setting)}
    if "temperature_epochs" not in chosen and isinstance(epochs := chosen.get("epochs", RECIPE.epochs), int):
        chosen["temperature_epochs"] = annealing_epochs(epochs)
    if "data_root" in opening:
        opening["data_root"] = str(opening["data_root"])
    settings = CompareSettings.of(
        {
            "backbone": backbone or DEFAULT_BACKBONE,
            "model_args": assignments("--arg", arg),
            "pretrained": pretrained,
            "weights": None if weights is None else str(weights),
            "methods": tuple(_words(methods)),
            "experts": tuple(_whole_numbers("--experts", experts)) if experts else (),
            "data": data,
            "crop_pct": crop_pct,
            "train_images": train_images,
            "seeds": _seeds(seeds),
            "workers": _workers(data),
            "training": TrainSettings.of({**RECIPE.model_dump(), **chosen}),
            **sizes,
            **network,
            **opening,
        }
    )
    prepare(threads)
    place = out or settings.default_folder()
    comparison = run_comparison(settings, place, None if quiet else _watcher(settings, place))
    print(json.dumps(comparison.plain(), indent=2) if as_json else _text(comparison, place))


def _text(comparison: Comparison, place: Path) -> str:
    from dynaconv.analysis.report import HEADINGS, cells, notes

    columns = width()
    rows = [cells(row) for row in comparison.rows]
    lines = table(HEADINGS, rows, right=range(1, len(HEADINGS)), columns=columns)
    conclusions = [sentences(row.conclusion, columns) for row in comparison.rows[1:]]
    told = [sentences(note, columns) for note in notes(comparison)]
    return "\n".join(
        [lines, "", *conclusions, "", *told, "", sentences(f"{place}/compare.json, .csv, .md, .png, .pdf", columns)]
    )


def _watcher(settings: CompareSettings, place: Path) -> Any:
    from dynaconv.cli.compare_bar import CompareBar

    return CompareBar(settings, place)


def _one_process() -> None:
    import os

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("compare runs in one process; start it without torchrun ('dynaconv train' takes several).")


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _whole_numbers(option: str, text: str) -> list[int]:
    try:
        return [int(word) for word in _words(text)]
    except ValueError:
        raise UserError(f"{option} is {text!r}; expected whole numbers separated by commas, such as 4 or 4,8") from None


def _seeds(text: str) -> tuple[int, ...]:
    numbers = _whole_numbers("--seeds", text)
    if len(numbers) == 1 and "," not in text:
        if numbers[0] < 1:
            raise UserError(f"--seeds is {text!r}; expected a count of at least 1, or seeds separated by commas")
        return tuple(range(numbers[0]))
    return tuple(numbers)


def _workers(data: str) -> int:
    import os

    return 0 if data == "digits" else min(MOST_WORKERS, os.cpu_count() or 1)
