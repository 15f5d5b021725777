"""``dynaconv train``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from os import environ
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from dynaconv.cli import options
from dynaconv.cli.options import Given, assignments, choice, takes
from dynaconv.errors import UserError
from dynaconv.files import read_json
from dynaconv.tasks import TASKS

if TYPE_CHECKING:
    from dynaconv.tasks.network import ModelSpec
    from dynaconv.train.recipe import Recipe


@takes(
    network=options.NETWORK,
    sizes=options.SIZES,
    training=options.TRAINING,
    keeping=options.KEEPING,
    opening=options.DATA.default(workers=2),
)
def train(
    *,
    model: Annotated[str | None, Argument(help=f"A network: {options.NETWORKS}. E.g. dy_mobilenetv2_050.")] = None,
    data: Annotated[str | None, Option(help=options.DATA_NAMES)] = None,
    recipe: Annotated[
        str | None, Option(help="A recipe by name, or a JSON file such as another run's run.json.")
    ] = None,
    out: Annotated[
        Path | None,
        Option(
            help="Folder of the run. Default: runs/NAME-CHOICES-DATA-seedN: the recipe's name, or else the network's, "
            "and what was chosen about the network beyond it, e.g. static or experts8."
        ),
    ] = None,
    resume: Annotated[
        str,
        choice("auto", "never", help="'auto' goes on from the last whole checkpoint; 'never' wants a new folder."),
    ] = "never",
    task: Annotated[
        str | None,
        choice(*TASKS, help="What the network is trained for. Default: as its name says, or else classification."),
    ] = None,
    finetune: Annotated[
        Path | None,
        Option(help="Begin from what fits of these weights, of another network too: a run, a checkpoint, a file."),
    ] = None,
    weights: options.Weights = None,
    pretrained: options.Pretrained = False,
    arg: options.Arg = None,
    setting: options.Set = None,
    data_arg: options.DataArg = None,
    threads: options.Threads = None,
    profile: Annotated[
        bool, Option("--profile", help="Print images/s of loader and step, beside timm's loader; do not train.")
    ] = False,
    show: Annotated[bool, Option("--show", help="Print the resolved recipe; do not train.")] = False,
    quiet: options.Quiet = False,
    network: Given,
    sizes: Given,
    training: Given,
    keeping: Given,
    opening: Given,
) -> None:
    """Train a network. Kill it at any moment and go on with --resume auto.

    On several GPUs: torchrun --nproc-per-node 8 -m dynaconv train ...
    """
    base = {} if recipe is None else read(recipe)
    with _naming(recipe):
        resolved = _resolve(
            base,
            model={"name": model, **network, "args": assignments("--arg", arg)},
            settings={**training, **keeping, **assignments("--set", setting)},
            rest={**sizes, "data": data, "task": task},
            data_args=assignments("--data-arg", data_arg),
            recipe=recipe,
        )
    if show:
        print(json.dumps(resolved.model_dump(mode="json"), indent=2))
        return
    if "data_root" in opening:
        opening["root"] = opening.pop("data_root")
    if profile:
        _profile(resolved, opening, weights, threads)
        return
    folder = out or default_folder(resolved, recipe, base.get("model"))
    _train(resolved, opening, folder, resume, finetune, weights, pretrained, quiet, threads)


@contextmanager
def _naming(recipe: str | None) -> Iterator[None]:
    """Name the recipe in an error: what is wrong may stand there."""
    try:
        yield
    except UserError as error:
        if recipe is None:
            raise
        raise UserError(f"{error} (with the recipe {recipe})") from error


def _resolve(
    base: dict[str, Any],
    model: dict[str, Any],
    settings: dict[str, Any],
    rest: dict[str, Any],
    data_args: dict[str, Any],
    recipe: str | None,
) -> Recipe:
    from dynaconv.tasks.network import trusted
    from dynaconv.train.recipe import resolve_recipe

    if model["name"] is None and "model" not in base:
        raise UserError("Which network? Pass a MODEL (e.g. mobilenetv2_050) or a --recipe. 'dynaconv list' names them.")
    resolved = resolve_recipe(base, model, settings, rest, data_args)
    if model["name"] is None:
        trusted(resolved.model, None, Path(recipe or "the recipe"))
    if resolved.data is None:
        raise UserError("Which data? Pass --data: 'digits', a folder of images, torch/NAME, hfds/NAME or wds/FOLDER.")
    return resolved


def read(name: str) -> dict[str, Any]:
    """The recipe of that name, or of that JSON file, as a dictionary.

    Raises:
        UserError: there is none.
    """
    from importlib import import_module
    from importlib.util import find_spec

    from dynaconv.train.recipe import read_recipe

    if Path(name).suffix == ".json" or Path(name).is_file():
        return read_recipe(Path(name))
    if find_spec("dynaconv.recipes") is None:
        raise UserError(f"There is no recipe {name!r}, and no file of that name.")
    loaded: dict[str, Any] = import_module("dynaconv.recipes").load(name)
    return loaded


def _open(recipe: Recipe, opening: dict[str, Any]) -> Any:
    from dynaconv.tasks import task_class

    assert recipe.data is not None
    return task_class(recipe.task).open_data(
        recipe.data,
        image_size=recipe.image_size,
        batch_size=recipe.batch_size,
        interpolation=recipe.interpolation,
        crop_pct=recipe.crop_pct,
        seed=recipe.settings.seed,
        **{**recipe.data_args, **opening},
    )


def _train(
    recipe: Recipe,
    opening: dict[str, Any],
    out: Path,
    resume: str,
    finetune: Path | None,
    weights: Path | None,
    pretrained: bool,
    quiet: bool,
    threads: int | None,
) -> None:
    import torch

    from dynaconv.cli.terminal import prepare, sentences, width
    from dynaconv.train import fit
    from dynaconv.train.accelerator import is_first_process
    from dynaconv.train.progress import Bar
    from dynaconv.train.run_folder.weights import finetune_from
    from dynaconv.train.sanity import check_experts, check_losses, check_sizes

    first = is_first_process()
    prepare(threads, first)
    data = _open(recipe, opening)
    torch.manual_seed(recipe.settings.seed)
    network = data.network(recipe.model, pretrained=pretrained, weights=weights)
    if finetune is not None:
        finetune_from(network, finetune)
    check_sizes(network, data, accumulate=recipe.settings.accumulate, processes=int(environ.get("WORLD_SIZE", "1")))
    check_experts([recipe.model.experts, recipe.model.args.get("experts")])
    if first:
        print(sentences(f"{recipe.model.name} on {data.description}; into {out}", width()))
    result = fit(
        network,
        data,
        recipe.settings,
        out=out,
        resume=resume,
        progress=Bar() if first and not quiet else None,
        about={
            "model": recipe.model.model_dump(mode="json"),
            "recipe": recipe.model_dump(mode="json"),
            **_file_behind(recipe.model, out, resume),
        },
    )
    check_losses([record.train_loss for record in result.history])
    if first:
        print(sentences(f"{result.summary()}; weights in {out / 'best.safetensors'}", width()))


def _file_behind(spec: ModelSpec, out: Path, resume: str) -> dict[str, Any]:
    """What a run keeps about the file that its network comes from; a warning if it was another one before."""
    from dynaconv.tasks.network import changed_file, file_of

    if resume == "auto" and (out / "run.json").is_file():
        try:
            before = read_json(out / "run.json").get("network_file")
        except (OSError, ValueError, AttributeError):  # the run folder says what is wrong with it
            before = None
        changed_file(spec, before, "when this run began")
    found = file_of(spec)
    return {} if found is None else {"network_file": found}


def _profile(recipe: Recipe, opening: dict[str, Any], weights: Path | None, threads: int | None) -> None:
    from dynaconv.cli.terminal import prepare
    from dynaconv.train.profile import profile

    prepare(threads)
    data = _open(recipe, opening)
    for line in profile(data.network(recipe.model, weights=weights), data, recipe.settings):
        print(line, flush=True)


def default_folder(recipe: Recipe, called: str | None = None, base: dict[str, Any] | None = None) -> Path:
    """``runs/NAME-CHOICES-DATA-seedN``, so that a network, its static twin and its variants do not meet.

    NAME is the recipe's, or else the network's; CHOICES is what was chosen about the network beyond that name.

    Args:
        recipe: the run, resolved.
        called: the recipe's name or file, if there was one. Another run's ``run.json`` names nothing.
        base: what that recipe says about the network.
    """
    from dynaconv.tasks.network import ModelSpec
    from dynaconv.tasks.sources import short_name
    from dynaconv.train.run_folder.folder import RECIPE

    named = called is not None and Path(called).name != RECIPE
    before = ModelSpec(**base) if named and base else ModelSpec(name=recipe.model.name)
    name = Path(called).stem if named and called is not None else short_name(recipe.model.name)
    parts = [name, *_choices(before, recipe.model), Path(recipe.data or "").name, f"seed{recipe.settings.seed}"]
    return Path("runs") / "-".join(part for part in parts if part)


def _choices(before: ModelSpec, after: ModelSpec) -> list[str]:
    old, new = ({**spec.model_dump(exclude={"args"}), **spec.args} for spec in (before, after))
    return [_words(name, value) for name, value in new.items() if value is not None and old.get(name) != value]


def _words(name: str, value: Any) -> str:
    """As part of a file's name.

    >>> [_words("static", True), _words("experts", 8), _words("method", "dynamic"), _words("channels", [8, 16])]
    ['static', 'experts8', 'dynamic', 'channels8_16']
    """
    if value is True:
        return name
    words = "_".join(re.findall(r"[\w.]+", str(value)))
    return words if name in ("name", "method") else name + words
