"""From pictures with boxes to batches.

A batch is a pair: images ``(B, 3, S, S)``, float32 from 0 to 1, and a list of B targets. In training a target has
``boxes`` (corners in pixels of the image) and ``labels`` from 1, as torchvision's networks take them. In evaluation it
has what the metrics need, in pixels of the picture: ``image`` (its id), ``size`` (width, height), ``boxes``,
``labels``, ``area``, ``crowd``; for files without annotations the first two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from dynaconv.data import decode
from dynaconv.data.coco import Annotation, Picture
from dynaconv.tasks.detection.transforms import Target, square

Example = tuple[Tensor, Target]
Batch = tuple[Tensor, list[Target]]


@dataclass(frozen=True)
class TrainingPictures:
    """Augmented examples; crowds are not trained on."""

    pictures: Sequence[Picture]
    transform: Callable[[Image.Image, Tensor, Tensor], Example]

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, row: int) -> Example:
        picture = self.pictures[row]
        image = picture.decode()
        single = [one for one in picture.annotations if not one.crowd]
        boxes = [one.box_within(picture.width, picture.height) for one in single]
        return self.transform(image, _boxes(boxes), _labels(single))


@dataclass(frozen=True)
class EvaluationPictures:
    """Whole pictures with all that is known of their objects, in the file's own pixels."""

    pictures: Sequence[Picture]
    size: int

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, row: int) -> Example:
        picture = self.pictures[row]
        image = picture.decode()
        annotations = picture.annotations
        return square(image, self.size), {
            "image": torch.tensor(picture.id),
            "size": torch.tensor(image.size),
            "boxes": _boxes([one.box for one in annotations]),
            "labels": _labels(annotations),
            "area": torch.tensor([one.area for one in annotations], dtype=torch.float64),
            "crowd": torch.tensor([one.crowd for one in annotations], dtype=torch.bool),
        }


@dataclass(frozen=True)
class Files:
    """Image files; ``image`` is their number."""

    paths: Sequence[Path]
    size: int

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> Example:
        return unlabelled(decode(self.paths[row]), self.size, row)


def unlabelled(image: Image.Image, size: int, number: int) -> Example:
    """An example of a picture of which nothing is known but its number."""
    return square(image, size), {"image": torch.tensor(number), "size": torch.tensor(image.size)}


def _boxes(boxes: Sequence[Sequence[float]]) -> Tensor:
    return torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)


def _labels(annotations: Sequence[Annotation]) -> Tensor:
    """Class 0 of the network is the background."""
    return torch.tensor([one.label + 1 for one in annotations], dtype=torch.int64)


def collate(examples: list[Example]) -> Batch:
    """Stack the images, which have one size; the targets stay a list, for they do not."""
    return torch.stack([image for image, _ in examples]), [target for _, target in examples]


def to_device(batch: Any, device: torch.device) -> Batch:
    """Move images and training targets; what evaluation only takes note of stays where it is."""
    images, targets = batch
    images = images.to(device, non_blocking=True).float().div_(255)
    if targets and "image" not in targets[0]:
        targets = [
            {"boxes": one["boxes"].to(device).float(), "labels": one["labels"].to(device, non_blocking=True)}
            for one in targets
        ]
    return images, targets
