"""Loading what is served: a run, its weights, a file of ``dynaconv.save``, or an exported one."""

from __future__ import annotations

from collections.abc import Sequence
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
    classes: Sequence[str] | None = None,
    image_size: int | None = None,
) -> Served:
    """Load a run folder (its best weights), a weights file, a file of ``dynaconv.save``, or an exported ONNX file.

    Args:
        frozen: freeze the network (:func:`dynaconv.freeze`), unless it is frozen or exported.
        bank_dtype: of the frozen bank.
        device: ``cpu``, ``cuda``, ``auto`` ...
        classes: their names, for a file that has none.
        image_size: that the network of a file of ``dynaconv.save`` sees; timm's for it if ``None``.

    Raises:
        UserError: there is nothing there, it is damaged, of another program, or without what serving needs.
    """
    with blame_input():
        where = find_device(device)
        saved = path.is_file() and is_archive(path)
        if image_size is not None and not saved:
            raise UserError(f"{path} says its image size itself; --image-size is for files of dynaconv.save.")
        if path.suffix in (".onnx", ".pt2"):
            return _exported(path, classes, where, bank_dtype)
        if saved:
            network, task = _of_archive(path, classes, image_size)
            name = type(network).__name__
        else:
            if classes is not None:
                raise UserError(f"{path} says its classes itself; --classes is for files that do not.")
            trained = load_trained(path, TaskOptions(channels_last=True))
            network, task, path = trained.model, trained.task, trained.path
            name = trained.about["model"]["name"]
    if frozen and "freeze_report" not in network.__dict__:
        network = _frozen(network, task, path, bank_dtype)
    elif bank_dtype is not None:
        raise UserError("--bank-dtype is for a network that is frozen here; this one is not.")
    return _checked(Served(network.eval().requires_grad_(False).to(where), task, name, path, where))


def _exported(path: Path, classes: Sequence[str] | None, device: torch.device, bank_dtype: str | None) -> Served:
    from dynaconv.serve.exported import load_exported

    if path.suffix == ".pt2":
        raise UserError(f"{path} would run code that is in it. Serve the run itself, or export it with --to onnx.")
    if device.type != "cpu" or bank_dtype is not None:
        raise UserError(f"{path} is run by ONNX Runtime on the CPU, as it is: leave --device and --bank-dtype away.")
    network, task, name = load_exported(path, classes)
    return _checked(Served(network.eval(), task, name, path, device))


def _checked(served: Served) -> Served:
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


def _of_archive(path: Path, classes: Sequence[str] | None, image_size: int | None) -> tuple[nn.Module, Task]:
    """A classifier: the only kind of network that such a file is served as."""
    network = load(path)
    if classes is None:
        raise UserError(
            f"{path} does not say the names of its classes (dynaconv.save keeps the network alone). Give --classes "
            "FILE with one name a line, or serve the run folder that training wrote."
        )
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
    if count != len(classes):
        raise UserError(f"{len(classes)} classes are named, and the network of {path} has {count} outputs.")
    return network, Classification(list(classes), ClassificationOptions(channels_last=True), preprocess=preprocess)


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
