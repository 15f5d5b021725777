"""Loading a checkpoint for the service: a run, its weights, or a file of ``dynaconv.save``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dynaconv.errors import UserError, blame_input
from dynaconv.inference import freeze, load
from dynaconv.inference.archive_file import is_archive
from dynaconv.serve.model import Served
from dynaconv.tasks.classification.task import Classification, ClassificationOptions
from dynaconv.tasks.classification.transforms import Preprocess
from dynaconv.tasks.task import Task, TaskOptions
from dynaconv.timing import find_device
from dynaconv.train.run_folder.weights import load_trained


def load_served(
    path: Path,
    *,
    frozen: bool = True,
    bank_dtype: str | None = None,
    device: str = "cpu",
    classes: Path | None = None,
    image_size: int | None = None,
) -> Served:
    """Load a run folder (its best weights), a weights file of training, or a file of ``dynaconv.save``.

    Args:
        frozen: freeze the network (:func:`dynaconv.freeze`).
        bank_dtype: of the frozen bank.
        device: ``cpu``, ``cuda``, ``auto`` ...
        classes: a file with one name a line, for a file of ``dynaconv.save``, which has none.
        image_size: that such a network sees; timm's for it if ``None``.

    Raises:
        UserError: there is nothing there, it is damaged, of another program, or without what serving needs.
    """
    with blame_input():
        where = find_device(device)
        if path.is_file() and is_archive(path):
            network, task = _of_archive(path, classes, image_size)
            name = type(network).__name__
        else:
            if classes is not None or image_size is not None:
                raise UserError(
                    f"{path} says its classes and image size itself; --classes and --image-size are for files of "
                    "dynaconv.save."
                )
            trained = load_trained(path, TaskOptions(channels_last=True))
            network, task, path = trained.model, trained.task, trained.path
            name = trained.about["model"]["name"]
    if frozen and "freeze_report" not in network.__dict__:
        network = _frozen(network, task, path, bank_dtype)
    elif bank_dtype is not None:
        raise UserError("--bank-dtype is for a network that is frozen here; this one is not.")
    network = network.eval().requires_grad_(False).to(where)
    served = Served(network, task, name, path, where)
    served.check()
    return served


def _frozen(network: nn.Module, task: Task, path: Path, bank_dtype: str | None) -> nn.Module:
    from PIL import Image

    shape = inputs_of(task.batch([task.example(Image.new("RGB", (64, 64)))], torch.device("cpu"))).shape[1:]
    try:
        return freeze(network, input_size=shape, bank_dtype=bank_dtype)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"The network of {path} cannot be frozen: {error}. --no-freeze serves it as it is.") from error


def inputs_of(batch: Any) -> Tensor:
    """The images of a task's batch."""
    if isinstance(batch, Tensor):
        return batch
    images: Tensor = batch["images"] if isinstance(batch, dict) else batch[0]
    return images


def _of_archive(path: Path, classes: Path | None, image_size: int | None) -> tuple[nn.Module, Task]:
    """A classifier: the only kind of network that such a file is served as."""
    network = load(path)
    if classes is None:
        raise UserError(
            f"{path} does not say the names of its classes (dynaconv.save keeps the network alone). Give --classes "
            "FILE with one name a line, or serve the run folder that training wrote."
        )
    names = read_classes(classes)
    known = getattr(network, "pretrained_cfg", None) or {}
    size = image_size or (known.get("input_size") or (3, 224, 224))[-1]
    preprocess = Preprocess(
        image_size=size,
        mean=tuple(known.get("mean") or (0.485, 0.456, 0.406)),
        std=tuple(known.get("std") or (0.229, 0.224, 0.225)),
        interpolation=known.get("interpolation") or "bicubic",
        crop_pct=known.get("crop_pct") or 0.875,
    )
    count = _outputs(network, size, path)
    if count != len(names):
        raise UserError(f"{classes} names {len(names)} classes, and the network of {path} has {count} outputs.")
    return network, Classification(names, ClassificationOptions(channels_last=True), preprocess=preprocess)


def read_classes(path: Path) -> list[str]:
    """The names of a file, one a line; empty lines at its end do not count.

    Raises:
        UserError: it cannot be read, is empty, or has an empty line between names.
    """
    try:
        names = path.read_text(encoding="utf-8").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The classes {path} cannot be read as text: {error}.") from error
    names = [name.strip() for name in names]
    if not names or not all(names):
        raise UserError(f"{path} has {'an empty line' if names else 'no names'}; expected one name a line.")
    return names


def _outputs(network: nn.Module, size: int, path: Path) -> int:
    like = next(network.parameters(), torch.zeros(()))
    try:
        with torch.no_grad():
            returned = network.eval()(torch.zeros(1, 3, size, size, dtype=like.dtype))
    except Exception as error:  # a network of somebody's fails in whichever way it likes
        raise UserError(
            f"The network of {path} does not run on a picture of {size}x{size} pixels ({error}). Give --image-size."
        ) from error
    if not isinstance(returned, Tensor) or returned.dim() != 2:
        shape = tuple(returned.shape) if isinstance(returned, Tensor) else type(returned).__name__
        raise UserError(f"The network of {path} returns {shape}; expected (batch, classes) of a classifier")
    return returned.shape[1]
