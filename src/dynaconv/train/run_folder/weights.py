"""Weights for inference in safetensors files, with the metadata that is needed to use them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dynaconv.errors import UserError
from dynaconv.files import write_whole
from dynaconv.tasks import task_class
from dynaconv.tasks.task import Task, TaskOptions
from dynaconv.train.run_folder.checkpoint import DamagedCheckpoint, read_checkpoint

log = logging.getLogger(__name__)

BEST = "best.safetensors"
LAST = "last.safetensors"
KEY = "dynaconv"


def save_weights(path: Path, model: nn.Module, about: dict[str, Any]) -> None:
    """Write a model's state and ``about`` (JSON types: model, classes, preprocessing, metrics) into one file."""
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    # One key: safetensors writes several in a random order, and the same weights should be the same file.
    metadata = {KEY: json.dumps({**about, "sha256": _digest(tensors, about)})}
    write_whole(path, lambda file: file.write(save(tensors, metadata)))


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a safetensors file and its ``about`` (empty if another program wrote it).

    Raises:
        UserError: not a safetensors file, truncated, or changed since it was written. Pickles are refused unread.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"There are no weights at {path}.")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
    except SafetensorError as error:
        raise UserError(
            f"{path} is not a whole safetensors file ({error}). Pickled weights (.pt, .pth, .bin) are not read here: "
            "they may run code. Use a run's best.safetensors, or its folder."
        ) from error
    if KEY not in metadata:
        return tensors, {}
    try:
        about = json.loads(metadata[KEY])
        whole = about.pop("sha256") == _digest(tensors, about)
    except (ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise UserError(
            f"{path} is damaged: its tensors and what is said about them do not match their checksum. Use another "
            "copy, or the checkpoint of that run."
        )
    return tensors, about


def _digest(tensors: dict[str, Tensor], about: dict[str, Any]) -> str:
    """Checksum of the tensors and of the metadata: a flipped bit in a class name would give wrong predictions."""
    whole = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        whole.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


@dataclass(frozen=True)
class Trained:
    """A network in evaluation mode with its task and metadata.

    Attributes:
        task: what it was trained for, to evaluate and predict with.
        about: what was saved with the weights.
        path: of the weights.
    """

    model: nn.Module
    task: Task
    about: dict[str, Any]
    path: Path

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return list(self.about["classes"])


def load_trained(path: Path, options: TaskOptions | None = None) -> Trained:
    """Rebuild the network of a run folder (its best weights) or of a weights file.

    Args:
        options: the task's, for the memory format.

    Raises:
        UserError: nothing there, damaged, or written by another program.
    """
    if path.is_dir():
        path = next((path / name for name in (BEST, LAST) if (path / name).is_file()), path / BEST)
    tensors, about = read_weights(path)
    try:
        task, model = task_class(about.get("task", "classification")).of_weights(about, options)
    except UserError as error:
        raise UserError(f"The weights {path} cannot be used: {error}.") from error
    wrong = differences(model, tensors)
    if wrong:
        raise UserError(
            f"{path} does not fit the model {about['model']['name']!r} as it is built here: {'; '.join(wrong[:4])}. "
            "Was it written by another version of timm or dynaconv?"
        )
    model.load_state_dict(tensors)
    if options is not None and options.channels_last:
        model.to(memory_format=torch.channels_last)
    return Trained(model.eval(), task, about, path)


def differences(model: nn.Module, tensors: dict[str, Tensor]) -> list[str]:
    """The reasons why ``tensors`` are not a state of this model, one line each."""
    own = model.state_dict()
    lines = [
        f"{name} is {tuple(tensors[name].shape)} there and {tuple(own[name].shape)} here"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    lines += [f"{name} is not there" for name in own if name not in tensors]
    lines += [f"{name} is there only" for name in tensors if name not in own]
    return lines


def finetune_from(model: nn.Module, path: Path) -> list[str]:
    """Load the tensors that fit by name and shape from a weights file, a checkpoint or a run folder.

    If more of them fit inside a part of this model (the backbone of a detector: ``backbone.features.``), they go there.

    Returns:
        one line for every tensor that was left out.

    Raises:
        UserError: nothing fits, or the file is damaged.
    """
    own = model.state_dict()
    tensors = _tensors(path)
    prefix = _part_of(own, tensors)
    tensors = {prefix + name: tensor for name, tensor in tensors.items()}
    left_out = differences(model, tensors)
    fitting = {name: tensor for name, tensor in tensors.items() if name in own and own[name].shape == tensor.shape}
    if not fitting:
        raise UserError(f"None of the {len(tensors)} tensors of {path} fits this model. Is it another network's?")
    model.load_state_dict(fitting, strict=False)
    where = f" into {prefix.rstrip('.')}" if prefix else ""
    log.info("took %d of %d tensors from %s%s", len(fitting), len(own), path, where)
    for line in left_out:
        log.warning("left as initialised: %s", line)
    return left_out


def _part_of(own: dict[str, Tensor], tensors: dict[str, Tensor]) -> str:
    """How the names of the part begin in which most tensors fit; nothing if that is the whole."""
    fitting = Counter({"": 0})  # the first wins where several have as many
    for name, tensor in own.items():
        steps = name.split(".")
        for depth in range(len(steps)):
            inner = ".".join(steps[depth:])
            if inner in tensors and tensors[inner].shape == tensor.shape:
                fitting["".join(f"{step}." for step in steps[:depth])] += 1
    return fitting.most_common(1)[0][0]


def _tensors(path: Path) -> dict[str, Tensor]:
    if path.is_dir():
        path = path / BEST
    if path.suffix != ".pt":
        return read_weights(path)[0]
    try:
        state: dict[str, Any] = read_checkpoint(path)
    except DamagedCheckpoint as damage:
        raise UserError(f"The checkpoint {path} cannot be used: {damage}.") from damage
    return state["ema"] or state["model"]
