"""``dynaconv compare``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from dynaconv.cli.assignments import assignments
from dynaconv.errors import UserError

if TYPE_CHECKING:
    from dynaconv.analysis import CompareSettings, Comparison

MOST_WORKERS = 4


def compare(
    backbone: Annotated[
        str | None, Argument(help="A network by timm's name ('dynaconv list' names them). Default: test_resnet.")
    ] = None,
    data: Annotated[
        str,
        Option(help="'digits', a folder (train/CLASS/IMAGE, val/CLASS/IMAGE), torch/NAME, hfds/NAME, wds/FOLDER."),
    ] = "digits",
    methods: Annotated[
        str, Option(help="Separated by commas: dynamic, condconv. The static twin always runs.")
    ] = "dynamic,condconv",
    experts: Annotated[
        str | None, Option(help="K, or several separated by commas. Default: the papers' 4 and 8.")
    ] = None,
    epochs: Annotated[int, Option(help="Passes over the training data.")] = 10,
    seeds: Annotated[str, Option(help="How many (0, 1, ...), or which, separated by commas: '3' or '7,8,9'.")] = "3",
    image_size: Annotated[int | None, Option(help="Height and width of the input. Default: the data set's.")] = None,
    batch_size: Annotated[int, Option(help="Images of one optimizer step.")] = 64,
    out: Annotated[
        Path | None, Option(help="Folder of the results. Default: runs/compare-..., named after the settings.")
    ] = None,
    as_json: Annotated[bool, Option("--json", help="Print compare.json instead of the table.")] = False,
    lr: Annotated[float, Option(help="Learning rate.")] = 0.003,
    optimizer: Annotated[str, Option("--optimizer", "--opt", help="By timm's name.")] = "adamw",
    sched: Annotated[str, Option(help="cosine, step, multistep, poly, tanh or constant.")] = "cosine",
    weight_decay: Annotated[float, Option(help="Of weights; biases and normalisation have none.")] = 0.05,
    warmup_epochs: Annotated[int, Option(help="Epochs in which the learning rate rises.")] = 0,
    label_smoothing: Annotated[float, Option(help="0 for off.")] = 0.0,
    mixup: Annotated[float, Option(help="Alpha of mixup; 0 for off.")] = 0.0,
    cutmix: Annotated[float, Option(help="Alpha of cutmix; 0 for off.")] = 0.0,
    auto_augment: Annotated[str | None, Option(help="timm's policy, e.g. rand-m9-mstd0.5.")] = None,
    crop: Annotated[str | None, Option(help="Training crop: resized, pad or none. Default: the data set's.")] = None,
    crop_pct: Annotated[float | None, Option(help="Share of the picture that evaluation crops.")] = None,
    clip_grad: Annotated[float | None, Option(help="Largest gradient norm.")] = None,
    amp: Annotated[str, Option(help="Mixed precision: no, bf16 or fp16.")] = "no",
    temperature_start: Annotated[float, Option(help="Of the softmax routers (method dynamic).")] = 30.0,
    temperature_end: Annotated[float, Option(help="Of the softmax routers.")] = 1.0,
    temperature_epochs: Annotated[
        int | None, Option(help="Epochs from the one to the other. Default: half of all, at most the paper's 10.")
    ] = None,
    share: Annotated[
        str | None, Option(help="Layers that share a router's answer: layer or block. Default: the method's.")
    ] = None,
    pretrained: Annotated[
        bool, Option("--pretrained", help="Begin from timm's pretrained weights, upgraded to experts.")
    ] = False,
    arg: Annotated[
        list[str] | None,
        Option("--arg", "--model-kwargs", help="An argument of the network, such as output_stride=8; repeatable."),
    ] = None,
    setting: Annotated[
        list[str] | None, Option("--set", help="Any other training setting, NAME=VALUE; may be repeated.")
    ] = None,
    train_images: Annotated[int | None, Option(help="Train on that many images only, all classes alike.")] = None,
    device: Annotated[str, Option(help="auto or cpu.")] = "auto",
    workers: Annotated[int | None, Option(help="Loader processes. Default: 0 for digits, else up to 4.")] = None,
    threads: Annotated[
        int | None, Option(min=1, help="Processor threads of PyTorch. Fewer are faster where others use the cores too.")
    ] = None,
    bad_images: Annotated[str, Option(help="Unreadable images: 'error' or 'skip'.")] = "error",
    data_root: Annotated[Path | None, Option(help="Folder of torch/ and hfds/ data sets.")] = None,
    train_split: Annotated[str | None, Option(help="Name of the training split.")] = None,
    eval_split: Annotated[str | None, Option(help="Name of the test split.")] = None,
    download: Annotated[bool, Option("--download", help="Fetch a torch/ data set.")] = False,
    quiet: Annotated[bool, Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Would dynamic convolution help a network, and what would it cost?

    Trains the static network and its dynamic twins under one equal recipe, over several seeds. Stop it at any moment;
    the same command goes on.
    """
    import torch

    from dynaconv.analysis import compare as run_comparison
    from dynaconv.analysis.settings import DEFAULT_BACKBONE, CompareSettings
    from dynaconv.cli.logging import log_to_terminal
    from dynaconv.train import TrainSettings

    _one_process()
    training = {
        "epochs": epochs,
        "lr": lr,
        "opt": optimizer,
        "sched": sched,
        "weight_decay": weight_decay,
        "warmup_epochs": warmup_epochs,
        "label_smoothing": label_smoothing,
        "mixup": mixup,
        "cutmix": cutmix,
        "auto_augment": auto_augment,
        "crop": crop,
        "clip_grad": clip_grad,
        "amp": amp,
        "device": device,
        "temperature_start": temperature_start,
        "temperature_end": temperature_end,
        "temperature_epochs": min(10, epochs // 2) if temperature_epochs is None else temperature_epochs,
        **assignments("--set", setting),
    }
    settings = CompareSettings.of(
        {
            "backbone": backbone or DEFAULT_BACKBONE,
            "model_args": assignments("--arg", arg),
            "pretrained": pretrained,
            "methods": tuple(_words(methods)),
            "experts": tuple(_whole_numbers("--experts", experts)) if experts else (),
            "share": share,
            "data": data,
            "data_root": None if data_root is None else str(data_root),
            "train_split": train_split,
            "eval_split": eval_split,
            "download": download,
            "image_size": image_size,
            "crop_pct": crop_pct,
            "batch_size": batch_size,
            "train_images": train_images,
            "bad_images": bad_images,
            "seeds": _seeds(seeds),
            "workers": _workers(data) if workers is None else workers,
            "training": TrainSettings.of(training),
        }
    )
    log_to_terminal(True)
    if threads is not None:
        torch.set_num_threads(threads)
    place = out or settings.default_folder()
    answer = run_comparison(settings, place, None if quiet else _watcher(settings, place))
    print(json.dumps(answer.plain(), indent=2)) if as_json else _print(answer, place)


def _print(answer: Comparison, place: Path) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from dynaconv.analysis.report import HEADINGS, cells, notes

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for index, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if index == 0 else "right", no_wrap=True)
    for row in answer.rows:
        table.add_row(*cells(row))
    console = Console(highlight=False, markup=False)
    console.width = max(console.width, console.measure(table, options=console.options.update(width=200)).maximum)
    console.print(table)
    for row in answer.rows[1:]:
        console.print(row.conclusion)
    console.print()
    for note in notes(answer):
        console.print(note)
    console.print(f"\n{place}/compare.json, .csv, .md, .png, .pdf", soft_wrap=True)


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
