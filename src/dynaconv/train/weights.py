"""Weights for inference: safetensors, with everything needed to use them in their metadata."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dynaconv.errors import UserError
from dynaconv.train.files import write_whole

KEY = "dynaconv"


def save_weights(path: Path, model: nn.Module, about: dict[str, Any]) -> None:
    """Write a model's state and ``about`` (JSON types: model, classes, preprocessing, metrics) into one file."""
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    # One key: safetensors writes several in a random order, and the same weights should be the same file.
    metadata = {KEY: json.dumps({**about, "sha256": _digest(tensors)})}
    write_whole(path, lambda file: file.write(save(tensors, metadata)))


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
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
    about = json.loads(metadata.get(KEY, "{}"))
    if about.pop("sha256", None) not in (None, _digest(tensors)):
        raise UserError(f"{path} is damaged: its tensors do not match their checksum. Use another copy.")
    return tensors, about


def _digest(tensors: dict[str, Tensor]) -> str:
    whole = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        whole.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()
