"""The weights of a run: rebuild its network, or begin another run from them."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dynaconv.errors import UserError
from dynaconv.tasks import task_class
from dynaconv.tasks.network import ModelSpec, changed_file, trusted
from dynaconv.tasks.task import Task, TaskOptions
from dynaconv.tasks.weights import BEST, LAST, differences, read_weights, save_weights
from dynaconv.train.run_folder.checkpoint import DamagedCheckpoint, read_checkpoint

log = logging.getLogger(__name__)

__all__ = ["BEST", "LAST", "Trained", "differences", "finetune_from", "load_trained", "read_weights", "save_weights"]


@dataclass(frozen=True)
class Trained:
    """A network in evaluation mode with its task and metadata.

    Attributes:
        model: the network, with its weights.
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


def load_trained(path: Path, options: TaskOptions | None = None, model: str | None = None) -> Trained:
    """Rebuild the network of a run folder (its best weights) or of a weights file.

    Args:
        options: the task's, for the memory format.
        model: the function that builds the network, ``path/to/file.py:function``, where one of the user's own was
            trained: a file does not decide what code runs.

    Raises:
        UserError: nothing there, damaged, or written by another program.
    """
    if path.is_dir():
        path = next((path / name for name in (BEST, LAST) if (path / name).is_file()), path / BEST)
    tensors, about = read_weights(path)
    if "model" in about:
        try:
            described = ModelSpec(**about["model"])
        except (UserError, TypeError) as error:
            raise UserError(f"The weights {path} cannot be used: they say of their network: {error}.") from error
        spec = trusted(described, model, path)
        changed_file(spec, about.get("network_file"), f"that {path.name} was trained with")
        about = {**about, "model": spec.model_dump(mode="json")}
    try:
        task, network = task_class(about.get("task", "classification")).of_weights(about, options)
    except (UserError, TypeError) as error:  # a value of another type, such as a list as the task's name
        raise UserError(f"The weights {path} cannot be used: {error}.") from error
    wrong = differences(network, tensors)
    if wrong:
        raise UserError(
            f"{path} does not fit the model {about['model']['name']!r} as it is built here: {'; '.join(wrong[:4])}. "
            "Was it written by another version of timm or dynaconv?"
        )
    network.load_state_dict(tensors)
    if options is not None and options.channels_last:
        network.to(memory_format=torch.channels_last)
    return Trained(network.eval(), task, about, path)


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
    tensors = state.get("ema") or state.get("model")
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise UserError(f"The checkpoint {path} holds no tensors of a model.")
    return tensors
