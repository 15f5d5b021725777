"""Taking weights into a model: all of them when a run goes on, those that fit when a new one begins from them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dynaconv.errors import UserError
from dynaconv.train.checkpoint import DamagedCheckpoint, read_checkpoint
from dynaconv.train.weights import load_weights

log = logging.getLogger(__name__)


def differences(model: nn.Module, tensors: dict[str, Tensor]) -> list[str]:
    """What keeps ``tensors`` from being this model's state, one line each."""
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
    """Load the tensors that fit by name and shape from a weights file, a checkpoint or a run folder; answer the others.

    Raises:
        UserError: nothing fits, or the file is damaged.
    """
    tensors = _tensors(path)
    left_out = differences(model, tensors)
    own = model.state_dict()
    fitting = {name: tensor for name, tensor in tensors.items() if name in own and own[name].shape == tensor.shape}
    if not fitting:
        raise UserError(f"None of the {len(tensors)} tensors of {path} fits this model. Is it another network's?")
    model.load_state_dict(fitting, strict=False)
    log.info("took %d of %d tensors from %s", len(fitting), len(own), path)
    for line in left_out:
        log.warning("left as initialised: %s", line)
    return left_out


def _tensors(path: Path) -> dict[str, Tensor]:
    if path.is_dir():
        path = path / "best.safetensors"
    if path.suffix != ".pt":
        return load_weights(path)[0]
    try:
        state: dict[str, Any] = read_checkpoint(path)
    except DamagedCheckpoint as damage:
        raise UserError(f"The checkpoint {path} cannot be used: {damage}.") from damage
    return state["ema"] or state["model"]
