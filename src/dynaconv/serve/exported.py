"""An exported classifier (ONNX) as a network: ONNX Runtime computes, and routing weights stay inside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from dynaconv.errors import UserError
from dynaconv.export import Exported, load
from dynaconv.tasks.classification.task import Classification
from dynaconv.tasks.classification.transforms import Preprocess


class ExportedClassifier(nn.Module):
    """``(B, 3, S, S)`` as :func:`preprocessing_of` says -> logits ``(B, classes)``.

    A file that is fixed to a batch is called as often as needed, the last time with its last image repeated.
    """

    def __init__(self, exported: Exported) -> None:
        super().__init__()
        self.exported = exported

    def forward(self, images: Tensor) -> Tensor:
        if self.exported.input == "uint8":
            images = images.mul(255).round().to(torch.uint8)
        size = self.exported.batch or max(1, len(images))
        return torch.cat([self._logits(part, size) for part in images.split(size)])

    def _logits(self, images: Tensor, size: int) -> Tensor:
        count = len(images)
        if count < size:
            images = torch.cat([images, images[-1:].expand(size - count, *images.shape[1:])])
        return self.exported.run(images)["logits"][:count]


def preprocessing_of(exported: Exported) -> Preprocess:
    """How pictures become what the network of the file takes: a file that normalises itself gets values from 0 to 1."""
    known, (_, height, width) = exported.preprocessing, exported.input_size
    if height != width:
        raise UserError(f"{exported.path} takes images of {height}x{width} pixels; expected squares.")
    if exported.input == "normalised" and not {"mean", "std"} <= set(known):
        raise UserError(f"{exported.path} does not say how its images are normalised; export it from a run.")
    inside = exported.input != "normalised"
    try:
        return Preprocess(
            image_size=height,
            mean=(0.0, 0.0, 0.0) if inside else known["mean"],
            std=(1.0, 1.0, 1.0) if inside else known["std"],
            **{name: known[name] for name in ("interpolation", "crop_pct") if known.get(name)},
        )
    except UserError as error:
        raise UserError(f"{exported.path} describes a preprocessing that cannot be: {error}") from error


def load_exported(path: Path, classes: Sequence[str] | None) -> tuple[nn.Module, Classification, str]:
    """The network of an ONNX file, its task, and a name for people.

    Raises:
        UserError: damaged, foreign, no classifier, or without names of classes.
    """
    exported = load(path, threads=torch.get_num_threads())
    if exported.task != "classification":
        raise UserError(f"{path} is for {exported.task}; of exported files classifiers are served.")
    names = classes or exported.classes
    if names is None:
        raise UserError(f"{path} does not say the names of its classes. Give --classes FILE with one name a line.")
    network = ExportedClassifier(exported)
    task = Classification(list(names), preprocess=preprocessing_of(exported))
    return network, task, f"{exported.about.get('name', path.stem)} ({exported.runtime})"
