"""Weights in files: those of a run, with what is needed to use them, and those that other programs wrote."""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dynaconv.conversion.load import load_fitting, read_safetensors
from dynaconv.errors import UserError, suggest
from dynaconv.files import write_whole
from dynaconv.layers import DynamicLayer

log = logging.getLogger(__name__)

BEST = "best.safetensors"
LAST = "last.safetensors"
HUB = "model.safetensors"
KEY = "dynaconv"
PICKLED = (".pth", ".pt", ".bin", ".ckpt", ".tar")

# Under these keys training programs put the weights into a checkpoint; averaged ones are those that they evaluate.
_INSIDE = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "state_dict", "model_state_dict", "model", "weights")
_WRAPPERS = ("module.", "_orig_mod.", "model.")  # what DataParallel, torch.compile and trainers put before every name
_AUXILIARY = ("AuxLogits.", "aux1.", "aux2.", "aux_logits.")  # heads for training alone


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
    tensors, metadata = read_safetensors(path)
    if KEY not in metadata:
        return tensors, {}
    try:
        about = json.loads(metadata[KEY])
        whole = about.pop("sha256") == _digest(tensors, about)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
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


def load_weights_into(network: nn.Module, path: Path, *, whole: bool = False) -> list[str]:
    """Load a file of weights of this very network; its head may be another one, as for other classes.

    Weights of the static network become experts of a dynamic one (:func:`~dynaconv.conversion.load.load_fitting`).

    Args:
        network: changed only if the weights fit.
        path: a safetensors file, a pickled one (read with ``weights_only=True``: tensors alone, no code), a file of
            ``dynaconv.save``, or a run's folder.
        whole: the head must fit too.

    Returns:
        The keys of the head that were left as initialised, each with its reason.

    Raises:
        UserError: no such file, a damaged one, one with code in it, or another network's weights, named.
    """
    tensors = read_any_weights(path)
    fitting = load_fitting(network, tensors, dry=True)
    heads = _heads_of(network)
    left: list[str] = []
    wrong: list[str] = []
    for line in fitting.problems:
        key = line.partition(" ")[0]
        if key.endswith("num_batches_tracked") or (key.startswith(_AUXILIARY) and key not in network.state_dict()):
            continue
        of_head = key.startswith(heads) and not whole
        (left if of_head else wrong).append(line)
    if wrong or not fitting.loaded:
        count = f"{len(fitting.loaded)} of its {len(tensors)} tensors fit"
        more = f"; and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise UserError(
            f"{path} holds weights of another network than this {type(network).__name__}: {count}; "
            f"{'; '.join(wrong[:4])}{more}. Expected this network's own (its static twin's, for a dynamic one)"
            + (", for as many classes" if whole else "; 'train --finetune' takes whatever fits")
        )
    load_fitting(network, tensors)
    experts = f", {len(fitting.upgraded)} of them into experts" if fitting.upgraded else ""
    log.info("took %d tensors from %s%s", len(fitting.loaded), path, experts)
    if left:
        log.warning("the head is left as initialised: %s", "; ".join(left))
    return left


def read_any_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file that this or another program wrote, by name.

    Raises:
        UserError: no such file; damaged; a pickle that holds more than tensors; no tensors in it.
    """
    if path.is_dir():
        path = next((path / name for name in (BEST, LAST, HUB) if (path / name).is_file()), path / BEST)
    if not path.is_file():
        beside = [each.name for each in path.parent.iterdir() if each.is_file()] if path.parent.is_dir() else []
        hint = suggest(path.name, beside) if beside else f"There is no folder {path.parent}."
        raise UserError(f"There are no weights at {path}. {hint if hint.startswith(('Did', 'There')) else ''}".strip())
    tensors = _unpickled(path) if path.suffix in PICKLED else read_tensors(path)
    for prefix in _WRAPPERS:
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    if not tensors:
        raise UserError(f"{path} holds no tensors; expected a state dict, such as torch.save(model.state_dict(), ...)")
    return tensors


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file: a run's, one of ``dynaconv.save``, or another program's; checksums hold."""
    from dynaconv.inference.archive_file import is_archive, read

    if not is_archive(path):
        return read_weights(path)[0]
    description, tensors = read(path)
    return {**tensors, **{name: tensors[first] for name, first in description["same"].items()}}


def _unpickled(path: Path) -> dict[str, Tensor]:
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds more than tensors, which could run code when it is read, and is not read: "
            f"{str(error).splitlines()[0]} Where you trust it, write its tensors alone: "
            "torch.save(model.state_dict(), 'weights.pth'), or a .safetensors file"
        ) from error
    except Exception as error:  # torch raises RuntimeError, EOFError, KeyError and others for damaged files
        raise UserError(f"{path} is damaged, or no file of torch.save: {type(error).__name__}: {error}") from error
    for key in _INSIDE:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping) and content[key]:
            log.info("weights of %s: its entry %r", path, key)
            content = content[key]
            break
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds a {type(content).__name__}; expected a state dict: names with tensors")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _heads_of(network: nn.Module) -> tuple[str, ...]:
    """How the names of the head's tensors begin: as timm says, or else the last module that has parameters."""
    config = getattr(network, "pretrained_cfg", None)
    named = (config.get("classifier") if isinstance(config, dict) else getattr(config, "classifier", None)) or ()
    heads = [named] if isinstance(named, str) else list(named)
    if not heads:
        dynamic = [name for name, module in network.named_modules() if isinstance(module, DynamicLayer)]
        last = next(reversed([name for name, _ in network.named_parameters()]), "").rpartition(".")[0]
        heads = [next((name for name in dynamic if last.startswith(f"{name}.")), last)]  # not its router
    return tuple(f"{head}." for head in heads if head)
