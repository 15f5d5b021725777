"""``dynaconv train``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from dynaconv.cli.assignments import assignments
from dynaconv.errors import UserError

if TYPE_CHECKING:
    from dynaconv.train.recipe import Recipe


def train(
    model: Annotated[
        str | None, Argument(help="A network by timm's name, e.g. mobilenetv2_050 or dy_mobilenetv2_050.")
    ] = None,
    data: Annotated[
        str | None,
        Option(help="'digits', a folder (train/CLASS/IMAGE, val/CLASS/IMAGE), torch/NAME, hfds/NAME, wds/FOLDER."),
    ] = None,
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
        str, Option(help="'auto' goes on from the last whole checkpoint; 'never' wants a new folder.")
    ] = "never",
    finetune: Annotated[
        Path | None, Option(help="Begin from these weights: a run, a checkpoint, a safetensors file.")
    ] = None,
    pretrained: Annotated[bool, Option("--pretrained", help="Begin from timm's pretrained weights.")] = False,
    method: Annotated[str | None, Option(help="Make the convolutions dynamic: 'dynamic' or 'condconv'.")] = None,
    experts: Annotated[
        int | None, Option(help="Experts K of every dynamic layer: with --method, or of one of the papers' networks.")
    ] = None,
    share: Annotated[str | None, Option(help="Layers that share a router's answer: 'layer' or 'block'.")] = None,
    arg: Annotated[
        list[str] | None, Option(help="An argument of the network, such as static=True or convs=C1; repeatable.")
    ] = None,
    epochs: Annotated[int | None, Option(help="Passes over the training data.")] = None,
    batch_size: Annotated[int | None, Option(help="Examples of one step, over all processes.")] = None,
    image_size: Annotated[int | None, Option(help="Height and width that the network sees.")] = None,
    seed: Annotated[int | None, Option(help="Of weights, order, augmentation and dropout. Default 0.")] = None,
    lr: Annotated[float | None, Option(help="Learning rate.")] = None,
    opt: Annotated[str | None, Option(help="Optimizer by timm's name.")] = None,
    sched: Annotated[str | None, Option(help="cosine, step, multistep, poly, tanh or constant.")] = None,
    weight_decay: Annotated[float | None, Option()] = None,
    warmup_epochs: Annotated[int | None, Option()] = None,
    label_smoothing: Annotated[float | None, Option()] = None,
    mixup: Annotated[float | None, Option(help="Alpha of mixup; 0 for off.")] = None,
    cutmix: Annotated[float | None, Option(help="Alpha of cutmix; 0 for off.")] = None,
    auto_augment: Annotated[str | None, Option(help="timm's policy, e.g. original or rand-m9-mstd0.5.")] = None,
    random_erasing: Annotated[float | None, Option(help="Probability of erasing a rectangle.")] = None,
    dropout: Annotated[float | None, Option(help="Before the classifier.")] = None,
    drop_path: Annotated[float | None, Option(help="Stochastic depth.")] = None,
    clip_grad: Annotated[float | None, Option(help="Largest gradient norm.")] = None,
    accumulate: Annotated[int | None, Option(help="Parts into which a batch is cut to save memory.")] = None,
    ema: Annotated[float | None, Option(help="Decay of averaged weights.")] = None,
    amp: Annotated[str | None, Option(help="Mixed precision: no, bf16 or fp16.")] = None,
    compile: Annotated[bool | None, Option("--compile/--no-compile", help="torch.compile.")] = None,
    channels_last: Annotated[bool | None, Option("--channels-last/--no-channels-last")] = None,
    deterministic: Annotated[bool | None, Option("--deterministic/--no-deterministic")] = None,
    device: Annotated[str | None, Option(help="auto or cpu.")] = None,
    temperature_start: Annotated[float | None, Option(help="Of softmax routers.")] = None,
    temperature_end: Annotated[float | None, Option()] = None,
    temperature_epochs: Annotated[int | None, Option()] = None,
    setting: Annotated[
        list[str] | None, Option("--set", help="Any other setting, NAME=VALUE; may be repeated.")
    ] = None,
    workers: Annotated[int, Option(help="Loader processes.")] = 2,
    bad_images: Annotated[str, Option(help="Unreadable images: 'error' or 'skip'.")] = "error",
    max_bad_images: Annotated[int | None, Option(help="How many may be skipped. Default 1 %, at least 10.")] = None,
    data_root: Annotated[Path | None, Option(help="Folder of torch/ and hfds/ data sets.")] = None,
    train_split: Annotated[str | None, Option()] = None,
    eval_split: Annotated[str | None, Option()] = None,
    download: Annotated[bool, Option("--download", help="Fetch a torch/ data set.")] = False,
    checkpoint_every: Annotated[int | None, Option(help="Steps between checkpoints inside an epoch.")] = None,
    keep: Annotated[int | None, Option(help="Checkpoints kept besides the best.")] = None,
    log_every: Annotated[int | None, Option(help="Steps between points in TensorBoard.")] = None,
    tensorboard: Annotated[bool | None, Option("--tensorboard/--no-tensorboard")] = None,
    wandb: Annotated[bool | None, Option("--wandb/--no-wandb")] = None,
    profile: Annotated[
        bool, Option("--profile", help="Print images/s of loader and step, beside timm's loader; do not train.")
    ] = False,
    show: Annotated[bool, Option("--show", help="Print the resolved recipe; do not train.")] = False,
    quiet: Annotated[bool, Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Train a network. Kill it at any moment and go on with --resume auto.

    On several GPUs: torchrun --nproc-per-node 8 -m dynaconv train ...
    """
    from dynaconv.cli.run_folder import default_folder

    base = {} if recipe is None else _recipe(recipe)
    resolved = _resolve(
        base,
        model={
            "name": model,
            "method": method,
            "experts": experts,
            "share": share,
            "dropout": dropout,
            "drop_path": drop_path,
            "args": assignments("--arg", arg),
        },
        settings={
            "epochs": epochs,
            "seed": seed,
            "lr": lr,
            "opt": opt,
            "sched": sched,
            "weight_decay": weight_decay,
            "warmup_epochs": warmup_epochs,
            "label_smoothing": label_smoothing,
            "mixup": mixup,
            "cutmix": cutmix,
            "auto_augment": auto_augment,
            "random_erasing": random_erasing,
            "clip_grad": clip_grad,
            "accumulate": accumulate,
            "ema": ema,
            "amp": amp,
            "compile": compile,
            "channels_last": channels_last,
            "deterministic": deterministic,
            "device": device,
            "temperature_start": temperature_start,
            "temperature_end": temperature_end,
            "temperature_epochs": temperature_epochs,
            "checkpoint_every": checkpoint_every,
            "keep": keep,
            "log_every": log_every,
            "tensorboard": tensorboard,
            "wandb": wandb,
            **assignments("--set", setting),
        },
        rest={"batch_size": batch_size, "image_size": image_size, "data": data},
    )
    if show:
        print(json.dumps(resolved.model_dump(mode="json"), indent=2))
        return
    opening = {
        "workers": workers,
        "bad_images": bad_images,
        "max_bad_images": max_bad_images,
        "root": data_root,
        "train_split": train_split,
        "eval_split": eval_split,
        "download": download,
    }
    if profile:
        _profile(resolved, opening)
        return
    folder = out or default_folder(resolved, recipe, base.get("model"))
    _train(resolved, opening, folder, resume, finetune, pretrained, quiet)


def _resolve(base: dict[str, Any], model: dict[str, Any], settings: dict[str, Any], rest: dict[str, Any]) -> Recipe:
    from dynaconv.train.recipe import resolve_recipe

    if model["name"] is None and "model" not in base:
        raise UserError("Which network? Pass a MODEL (e.g. mobilenetv2_050) or a --recipe. 'dynaconv list' names them.")
    resolved = resolve_recipe(base, model, settings, rest)
    if resolved.data is None:
        raise UserError("Which data? Pass --data: 'digits', a folder of images, torch/NAME, hfds/NAME or wds/FOLDER.")
    return resolved


def _recipe(name: str) -> dict[str, Any]:
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
    from dynaconv.data import open_data

    assert recipe.data is not None
    return open_data(
        recipe.data,
        image_size=recipe.image_size,
        batch_size=recipe.batch_size,
        interpolation=recipe.interpolation,
        crop_pct=recipe.crop_pct,
        seed=recipe.settings.seed,
        **opening,
    )


def _train(
    recipe: Recipe,
    opening: dict[str, Any],
    out: Path,
    resume: str,
    finetune: Path | None,
    pretrained: bool,
    quiet: bool,
) -> None:
    import torch

    from dynaconv.cli.logging import log_to_terminal
    from dynaconv.train import fit
    from dynaconv.train.accelerator import is_first_process
    from dynaconv.train.bar import Bar
    from dynaconv.train.build import build_model
    from dynaconv.train.finetune import finetune_from

    first = is_first_process()
    log_to_terminal(first)
    data = _open(recipe, opening)
    torch.manual_seed(recipe.settings.seed)
    network = build_model(recipe.model, len(data.classes), pretrained=pretrained, image_size=data.image_size)
    if finetune is not None:
        finetune_from(network, finetune)
    if first:
        print(f"{recipe.model.name} on {data.description}; into {out}")
    result = fit(
        network,
        data,
        recipe.settings,
        out=out,
        resume=resume,
        progress=Bar() if first and not quiet else None,
        about={"model": recipe.model.model_dump(mode="json"), "recipe": recipe.model_dump(mode="json")},
    )
    if first:
        print(
            f"top-1 {100 * result.top1:.2f} % (best {100 * result.best_top1:.2f} %); "
            f"weights in {out / 'best.safetensors'}"
        )


def _profile(recipe: Recipe, opening: dict[str, Any]) -> None:
    from dynaconv.train.build import build_model
    from dynaconv.train.profile import profile

    data = _open(recipe, opening)
    network = build_model(recipe.model, len(data.classes), image_size=data.image_size)
    for line in profile(network, data, recipe.settings):
        print(line, flush=True)
