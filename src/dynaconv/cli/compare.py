"""``dynaconv compare``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from dynaconv.cli import options
from dynaconv.cli.experiments import loader_workers, one_process, seeds_of, whole_numbers, words
from dynaconv.cli.options import Given, assignments, choice, takes
from dynaconv.cli.terminal import prepare, sentences, table, width
from dynaconv.errors import UserError
from dynaconv.tasks import TASKS

if TYPE_CHECKING:
    from dynaconv.analysis import CompareSettings, Comparison

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
    data: Annotated[str | None, Option(help=f"{options.DATA_NAMES} Default: digits.")] = None,
    recipe: Annotated[
        str | None, Option(help="Network, task and settings of a recipe by name, or of a JSON file.")
    ] = None,
    task: Annotated[
        str | None,
        choice(*TASKS, help="What the networks are trained for. Default: as the name says, or else classification."),
    ] = None,
    methods: Annotated[
        str | None,
        Option(
            help="Separated by commas: dynamic, condconv. The static twin always runs. Default: both; of a detector or "
            "keypoint network its paper's."
        ),
    ] = None,
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
    finetune: Annotated[
        list[str] | None,
        Option(help="Weights that a method's networks begin from, METHOD=RUN ('static', ...); repeatable."),
    ] = None,
    arg: options.Arg = None,
    setting: options.Set = None,
    data_arg: options.DataArg = None,
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

    one_process("compare")
    if "data_root" in opening:
        opening["data_root"] = str(opening["data_root"])
    settings = _settings(
        recipe,
        model={"name": backbone, "args": assignments("--arg", arg)},
        chosen={**training, **assignments("--set", setting)},
        rest={**sizes, "data": data, "task": task, "crop_pct": crop_pct},
        data_args=assignments("--data-arg", data_arg),
        own={
            "pretrained": pretrained,
            "weights": None if weights is None else str(weights),
            "finetune": {method: str(path) for method, path in assignments("--finetune", finetune).items()},
            "experts": tuple(whole_numbers("--experts", experts)) if experts else (),
            "train_images": train_images,
            "seeds": seeds_of(seeds),
            **({} if methods is None else {"methods": tuple(words(methods))}),
            **network,
            **opening,
        },
    )
    prepare(threads)
    place = out or settings.default_folder()
    comparison = run_comparison(settings, place, None if quiet else _watcher(settings, place))
    print(json.dumps(comparison.plain(), indent=2) if as_json else _text(comparison, place))


def _settings(
    recipe: str | None,
    model: dict[str, Any],
    chosen: dict[str, Any],
    rest: dict[str, Any],
    data_args: dict[str, Any],
    own: dict[str, Any],
) -> CompareSettings:
    """Of the recipe (without one, those of short runs), with what was typed laid over it."""
    from dynaconv.analysis.settings import DEFAULT_BACKBONE, RECIPE, CompareSettings, annealing_epochs, static_name
    from dynaconv.cli.train import read
    from dynaconv.models import TWINS
    from dynaconv.tasks import task_of_model
    from dynaconv.train.recipe import resolve_recipe
    from dynaconv.train.settings import LoopSettings

    base = read(recipe) if recipe is not None else {}
    if recipe is None:
        model["name"] = model["name"] or DEFAULT_BACKBONE
        rest["task"] = rest["task"] or task_of_model(model["name"])
        loop = RECIPE.model_dump()
        if rest["task"] != "classification":
            loop = {name: value for name, value in loop.items() if name in LoopSettings.model_fields}
        base["settings"] = loop
        if "temperature_epochs" not in chosen and isinstance(epochs := chosen.get("epochs", RECIPE.epochs), int):
            chosen["temperature_epochs"] = annealing_epochs(epochs)
    resolved = resolve_recipe(base, model, chosen, rest, data_args)
    spec = resolved.model
    if spec.dropout or spec.drop_path:
        raise UserError(f"The recipe {recipe} has dropout or drop_path; a comparison takes neither. Leave them out.")
    backbone = static_name(spec.name)
    data = resolved.data or "digits"
    if backbone in TWINS and "methods" not in own:
        own["methods"] = (TWINS[backbone][0],)
    shared = {name: getattr(resolved, name) for name in ("image_size", "interpolation", "crop_pct", "batch_size")}
    return CompareSettings.of(
        {
            "backbone": backbone,
            "model_args": spec.args,
            "task": resolved.task,
            "data": data,
            "data_args": resolved.data_args,
            "workers": loader_workers(data),
            "training": resolved.settings,
            **shared,
            **own,
        }
    )


def _text(comparison: Comparison, place: Path) -> str:
    from dynaconv.analysis.report import cells, headings, notes

    columns = width()
    rows = [cells(row) for row in comparison.rows]
    names = headings(comparison)
    lines = table(names, rows, right=range(1, len(names)), columns=columns)
    conclusions = [sentences(row.conclusion, columns) for row in comparison.rows[1:]]
    told = [sentences(note, columns) for note in notes(comparison)]
    return "\n".join(
        [lines, "", *conclusions, "", *told, "", sentences(f"{place}/compare.json, .csv, .md, .png, .pdf", columns)]
    )


def _watcher(settings: CompareSettings, place: Path) -> Any:
    from dynaconv.cli.compare_bar import CompareBar

    return CompareBar(settings.metric, place)
