"""How often an exported classifier and the network itself choose the same class, on images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dynaconv.errors import UserError
from dynaconv.export.runtimes import Exported
from dynaconv.export.source import Source
from dynaconv.tasks.classification import source as pictures
from dynaconv.tasks.classification.transforms import Preprocess

BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Of an exported file with its network in float32, in PyTorch.

    Attributes:
        images: how many were tried.
        top1: share of them for which both give the same class the largest score.
        top1_file, top1_network: share for which that class is the image's own; None where the network's classes have no
            names.
    """

    images: int
    top1: float
    top1_file: float | None
    top1_network: float | None

    def __str__(self) -> str:
        text = f"top-1 agreement with the float32 network: {100 * self.top1:.2f} % of {self.images} images"
        if self.top1_file is None or self.top1_network is None:
            return text
        return f"{text} (top-1 {100 * self.top1_file:.2f} %, the network's {100 * self.top1_network:.2f} %)"


class ExportedNetwork(nn.Module):
    """Images ``(B, 3, H, W)`` as :func:`preprocessing_of` says -> the file's first output, such as logits.

    A file that is fixed to a batch is called as often as needed, the last time with its last image repeated.
    """

    def __init__(self, exported: Exported) -> None:
        super().__init__()
        self.exported = exported

    def forward(self, images: Tensor) -> Tensor:
        return self.outputs(images)[self.exported.outputs[0]]

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """All outputs by name, of every image."""
        images = as_input(images, self.exported)
        size = self.exported.batch or max(1, len(images))
        parts = [self._run(part, size) for part in images.split(size)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _run(self, images: Tensor, size: int) -> dict[str, Tensor]:
        count = len(images)
        if count < size:
            images = torch.cat([images, images[-1:].expand(size - count, *images.shape[1:])])
        made = self.exported.run(images)
        return {name: value[:count] for name, value in made.items() if name != "selected"}


def as_input(images: Tensor, exported: Exported) -> Tensor:
    """Images as :func:`preprocessing_of` says, as the file takes them: of bytes, rounded."""
    return images.mul(255).round().to(torch.uint8) if exported.input == "uint8" else images


def normalisation_of(exported: Exported) -> tuple[Any, Any]:
    """Mean and standard deviation of every colour, for values from 0 to 1; 0 and 1 where the file normalises itself."""
    if exported.input == "normalised":
        return exported.preprocessing["mean"], exported.preprocessing["std"]
    return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def preprocessing_of(exported: Exported) -> Preprocess:
    """How pictures become what the network of the file takes: a file that normalises itself gets values from 0 to 1."""
    known, (_, height, width) = exported.preprocessing, exported.input_size
    if height != width:
        raise UserError(f"{exported.path} takes images of {height}x{width} pixels; expected squares.")
    if exported.input == "normalised" and not {"mean", "std"} <= set(known):
        raise UserError(f"{exported.path} does not say how its images are normalised; export it from a run.")
    mean, std = normalisation_of(exported)
    try:
        return Preprocess(
            image_size=height,
            mean=mean,
            std=std,
            **{name: known[name] for name in ("interpolation", "crop_pct") if known.get(name)},
        )
    except UserError as error:
        raise UserError(f"{exported.path} describes a preprocessing that cannot be: {error}") from error


def open_images(data: str, source: Source) -> pictures.Source:
    """Images to compare on: a folder of classes (of its val or test folder, if it has one), or a data set by its name.

    Raises:
        UserError: there is no such data, its classes are not the network's, or the network is no classifier.
    """
    if source.task != "classification":
        raise UserError(f"data compares classes, and {source.name} is a network for {source.task}; leave it away.")
    channels, height, width = source.input_size
    unknown = "" if source.preprocessing.get("mean") else ", mean and std unknown"
    if channels != 3 or height != width or unknown:
        raise UserError(
            f"data is for networks that take square colour pictures and say how these are normalised; {source.name} "
            f"takes ({channels}, {height}, {width}){unknown}."
        )
    from dynaconv.tasks.classification.datasets import open_splits
    from dynaconv.tasks.classification.folder import open_one_folder
    from dynaconv.tasks.classification.prediction import evaluation_source

    if Path(data).is_dir():
        return open_one_folder(Path(data), source.classes)[0]
    return open_splits(data).evaluation if source.classes is None else evaluation_source(data, source.classes)


def agreement(
    exported: Exported, network: nn.Module, images: pictures.Source, classes: Sequence[str] | None
) -> Agreement:
    """Run both on every image; ``network`` takes what the file takes.

    Raises:
        UserError: an image cannot be read, or the file does not say how its images are made.
    """
    from dynaconv.tasks.classification.prediction import plain_batches

    model = ExportedNetwork(exported)
    same = right = right_network = 0
    batches = plain_batches(images, preprocessing_of(exported), batch_size=BATCH)
    try:
        for inputs, labels in batches:
            with torch.no_grad():
                ours, theirs = model(inputs).argmax(dim=1), network(as_input(inputs, exported)).argmax(dim=1)
            same += int((ours == theirs).sum())
            right += int((ours == labels).sum())
            right_network += int((theirs == labels).sum())
    finally:
        batches.close()
    count = len(images)
    named = classes is not None
    return Agreement(
        images=count,
        top1=same / count,
        top1_file=right / count if named else None,
        top1_network=right_network / count if named else None,
    )
