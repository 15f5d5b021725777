"""Every number that can be given: options of the commands, fields of the settings, what tasks want to know of data.

They are found in the program itself, so a new one is tried without a line here. A case is the word that is typed,
``train --lr=inf``, after :data:`COMMANDS`' other words.
"""

from __future__ import annotations

import functools
import inspect
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast, get_args

import pytest
import torch

from dynaconv.cli import load
from dynaconv.tasks import TASKS, task_class
from dynaconv.train.loop import Loop
from dynaconv.train.run_folder.weights import read_weights
from dynaconv.train.settings import LoopSettings, settings_class
from faults import worlds
from faults.oracle import Fault, command, judge

VALUES = (
    *("0", "-1", "1", "2", "3", "0.5", "1.5", "1e-300", "1e-9", "1e9", "1e300", "inf", "-inf", "nan"),
    *("2147483647", "2147483648", "4294967296", "9223372036854775808", "18446744073709551616", "", "x", "0x10"),
)
PAIRS = ("[]", "[1]", "[0,0]", "[1,2]", "[2,1]", "[-1,1]", "[1e-300,1]", "[1e300,1e300]", "[nan,1]", "[1,2,3]", "null")
STEPS = 3

COMMANDS: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "train": (worlds.pictures, (*map(str, (*worlds.NETWORK, *worlds.TRAINING, *worlds.LOGS)), "--data", "{root}/data")),
    "eval": (worlds.weights, ("{root}/w.safetensors", "--data", "{root}/data", "--workers", "0", "--device", "cpu")),
    "predict": (worlds.weights, ("{root}/w.safetensors", "{root}/p.png", "--device", "cpu")),
    "compare": (worlds.pictures, ("test_resnet", "--data", "{root}/data", "--quiet", "--image-size", "16")),
    "bench": (lambda root: None, ("test_resnet", "--size", "32", "--rounds", "1", "--warmup", "0", "--no-memory")),
    "cost": (lambda root: None, ("test_resnet", "--input", "3x32x32")),
    "export": (lambda root: None, ("test_resnet", "--out", "{root}/x.onnx", "--image-size", "32")),
    "serve": (worlds.weights, ("{root}/w.safetensors", "--port", "0")),
    "inspect": (worlds.weights, ("{root}/w.safetensors", "--data", "{root}/data", "--workers", "0", "--device", "cpu")),
    "ablate": (worlds.pictures, ("sigmoid", "--data", "{root}/data", "--width", "0.125", "--image-size", "32")),
}
OUT = dict.fromkeys(("train", "compare", "inspect", "ablate"), ("--out", "{root}/out"))
TEXTS = (
    "--image-size",
    "--experts",
    "--seeds",
    "--values",
    "--input",
    "--batch",
)  # numbers, typed as text


class Enough(Exception):  # noqa: N818 - what happened
    """The settings were taken, and the work has begun."""


def words() -> list[str]:
    """All cases."""
    found = []
    for name in COMMANDS:
        for option in _numeric_options(name):
            found += [f"{name} {option}={value}" for value in VALUES]
    for option, names in _settings("classification").items():
        found += [f"train --set {option}={value}" for value in (PAIRS if names else VALUES)]
    for task in TASKS:
        own = {name: many for name, many in _settings(task).items() if name not in LoopSettings.model_fields}
        for option, many in (own | _reading(task)).items():
            found += [f"{task} {option}={value}" for value in (PAIRS if many else VALUES)]
    return found


def _numeric_options(name: str) -> list[str]:
    found = []
    for parameter in inspect.signature(load(name), eval_str=True).parameters.values():
        kind, *notes = get_args(parameter.annotation)
        declared = [word for note in notes for word in getattr(note, "param_decls", None) or ()]
        option = next((word for word in declared if word.startswith("--")), f"--{parameter.name.replace('_', '-')}")
        if {int, float} & {kind, *get_args(kind)} or option in TEXTS:
            found.append(option)
    return found


def _settings(task: str) -> dict[str, bool]:
    """The fields with numbers, and whether they hold several."""
    fields = {name: str(field.annotation) for name, field in settings_class(task).model_fields.items()}
    return {name: "tuple" in kind for name, kind in fields.items() if "int" in kind or "float" in kind}


def _reading(task: str) -> dict[str, bool]:
    """The numbers that a task's ``open_data`` takes."""
    from importlib import import_module

    parameters = inspect.signature(import_module(TASKS[task]).open_data).parameters.values()
    kinds = {one.name: str(one.annotation) for one in parameters}
    return {
        name: "tuple" in kind or "Sequence" in kind for name, kind in kinds.items() if "int" in kind or "float" in kind
    }


def run_number(case: str) -> str:
    """What came of it: ``refused``, or ``changed`` if it was taken.

    Raises:
        Fault: with the words.
    """
    name, _, given = case.partition(" ")
    option = given.removeprefix("--set ").partition("=")[0]
    root = worlds.case_folder()
    run = _task_case if name in TASKS else _command_case
    named = (option.lstrip("-"), option.lstrip("-").replace("-", "_"))
    try:
        return judge(functools.partial(run, root, name, given), None, root, checked=False, named=named)
    except Fault as fault:
        raise Fault(f"{case}: {fault}\n(again: python -m faults.hunt --case '{case}')") from fault.__cause__


def _command_case(root: Path, name: str, given: str) -> bool:
    make, others = COMMANDS[name]
    make(root)
    typed = ["--set", given.removeprefix("--set ")] if given.startswith("--set") else [given]
    threads = torch.get_num_threads()
    try:
        with _begun():
            command(name, *(word.format(root=root) for word in (*others, *OUT.get(name, ()))), *typed)
    except Enough:
        pass
    finally:
        torch.set_num_threads(threads)
    best = root / "out" / "best.safetensors"
    if best.exists() and not all(bool(one.isfinite().all()) for one in read_weights(best)[0].values()):
        raise Fault("weights that are not finite were saved as the best")
    return True


def _task_case(root: Path, task: str, given: str) -> bool:
    """Open data and read all batches with one option or setting changed; no network."""
    from dynaconv.cli.options import assignments

    {"classification": worlds.pictures, "detection": worlds.boxes, "keypoints": worlds.keypoints}[task](root)
    sizes = {"classification": 16, "detection": 32, "keypoints": (32, 32)}
    values = assignments("--data-arg", [given])
    reading = {"image_size": sizes[task], "batch_size": 2}
    of_data = {name: value for name, value in values.items() if name in _reading(task) and name not in _settings(task)}
    of_data |= {name: value for name, value in values.items() if name == "seed"}
    kind = task_class(task)
    data = kind.open_data(root / ("data" if task == "classification" else "coco"), **{**reading, **of_data})
    settings = settings_class(task)(**{name: value for name, value in values.items() if name in _settings(task)})
    data.task(settings, 2)
    for batches in (data.training_batches(settings), data.evaluation_batches()):
        for _ in batches:
            pass
        batches.close()
    return True


@contextmanager
def _begun() -> Iterator[None]:
    """Inside, training ends after some steps, comparisons before they measure; nothing is timed, traced or served."""

    def enough(*_: Any, **__: Any) -> None:
        raise Enough

    def serving(_: Any, listening: socket.socket, *__: Any) -> None:
        listening.close()
        raise Enough

    steps = iter(range(STEPS))
    train_step = Loop.train_step

    def step(loop: Loop, batch: Any) -> int:
        return train_step(loop, batch) if next(steps, None) is not None else cast(int, enough())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "train_step", step)
        patch.setattr("dynaconv.analysis.experiment._measure", enough)
        patch.setattr("dynaconv.analysis.ablation._measured", enough)
        patch.setattr("dynaconv.analysis.routes.write_inspection", enough)
        patch.setattr("dynaconv.bench.run.interleave", enough)
        patch.setattr("dynaconv.export.exporting.trace", enough)
        patch.setattr("dynaconv.serve.server.run", serving)
        yield
