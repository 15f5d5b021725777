"""From a person to an example, and from examples to batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from dynaconv.data import BadImages, Batches, EvaluationBatches, Examples, TrainBatches, decode
from dynaconv.data.coco import Box
from dynaconv.tasks.keypoints.augment import PoseAugment
from dynaconv.tasks.keypoints.geometry import CENTRE, crop_matrix, inverted, moved, region_of, warped
from dynaconv.tasks.keypoints.heatmaps import STRIDE
from dynaconv.tasks.keypoints.people import FileBox, Person
from dynaconv.tasks.keypoints.pose import PoseSpec

Batch = dict[str, Tensor]
"""Tensors of B crops by name:

``images`` ``(B, 3, H, W)``, uint8 in the loader and normalised float32 on the device; ``points`` ``(B, K, 2)`` in
pixels of the heat maps; ``weights`` ``(B, K)``, 1 where a keypoint is labelled and inside the crop; ``back``
``(B, 2, 3)``, the map from the heat maps to the picture; ``boxes`` ``(B, 4)``, corners; ``box_scores`` ``(B,)``;
``rows`` ``(B,)``, the example's place in its split."""


@dataclass(frozen=True)
class Crops:
    """``crops[row]`` is the example of one person, see :data:`Batch`.

    Args:
        people: annotated or detected, or boxes of image files.
        augment: ``None`` for evaluation.
    """

    people: Sequence[Person | FileBox]
    pose: PoseSpec
    augment: PoseAugment | None = None

    def __len__(self) -> int:
        return len(self.people)

    def __getitem__(self, row: int) -> Batch:
        person = self.people[row]
        if isinstance(person, FileBox):
            return unlabelled(decode(person.path), person.box, self.pose, row=row, score=person.score)
        return _example(
            person.picture.decode(), person.box, person.keypoints, self.pose, self.augment, row=row, score=person.score
        )


def unlabelled(image: Image, box: Box | None, pose: PoseSpec, *, row: int = 0, score: float = 1.0) -> Batch:
    """The example of a box of a picture without annotations; the whole picture if ``box`` is ``None``."""
    box = box or (0.0, 0.0, float(image.width), float(image.height))
    return _example(image, box, np.zeros((len(pose.names), 3), np.float32), pose, None, row=row, score=score)


def _example(
    image: Image,
    box: Box,
    keypoints: np.ndarray[Any, Any],
    pose: PoseSpec,
    augment: PoseAugment | None,
    *,
    row: int,
    score: float,
) -> Batch:
    region = region_of(box, pose.aspect, pose.padding)
    matrix, mirror = crop_matrix(region, pose.image_size), False
    if augment is not None:
        matrix, mirror = augment.matrix(region, keypoints, pose)
    crop = warped(image, matrix, pose.image_size)
    points, weights = targets(keypoints, matrix, mirror, pose)
    return {
        "images": torch.from_numpy(np.array(crop)).permute(2, 0, 1).contiguous(),
        "points": torch.from_numpy(points),
        "weights": torch.from_numpy(weights),
        "back": torch.from_numpy(inverted(matrix / STRIDE).astype(np.float32)),
        "boxes": torch.tensor(box),
        "box_scores": torch.tensor(score),
        "rows": torch.tensor(row),
    }


def targets(
    keypoints: np.ndarray[Any, Any], matrix: np.ndarray[Any, Any], mirror: bool, pose: PoseSpec
) -> tuple[np.ndarray[Any, np.dtype[np.float32]], np.ndarray[Any, np.dtype[np.float32]]]:
    """Places ``(K, 2)`` in pixels of the heat maps, and weights ``(K,)``.

    A keypoint that is not labelled, or outside the crop, has the weight 0, and stays at 0, 0 however the crop is moved.
    """
    if mirror:
        keypoints = keypoints[pose.swapped]
    points = moved(matrix, keypoints[:, :2].astype(np.float64) + CENTRE) / STRIDE
    rows, columns = pose.heat_size
    inside = (points >= 0).all(axis=1) & (points[:, 0] < columns) & (points[:, 1] < rows)
    weights = ((keypoints[:, 2] > 0) & inside).astype(np.float32)
    return (points * weights[:, None]).astype(np.float32), weights


def collate(examples: list[Batch]) -> Batch:
    """Stack every part."""
    return {name: torch.stack([example[name] for example in examples]) for name in examples[0]}


class OnDevice:
    """Moves a batch to the device and makes ``(x / 255 - mean) / std`` of its pixels there."""

    def __init__(self, pose: PoseSpec) -> None:
        self._pose = pose

    def __call__(self, batch: Batch, device: torch.device) -> Batch:
        there = {name: part.to(device, non_blocking=True) for name, part in batch.items()}
        mean, std = (
            torch.tensor([255 * value for value in values], device=device).view(1, -1, 1, 1)
            for values in (self._pose.mean, self._pose.std)
        )
        there["images"] = there["images"].float().sub_(mean).div_(std)
        return there


def crop_batches(
    crops: Crops,
    batches: TrainBatches | EvaluationBatches,
    bad_images: BadImages,
    *,
    seed: int | None = None,
    to_device: Any = None,
    **loading: Any,
) -> Batches:
    """Batches of crops; ``loading`` is ``workers``, ``timeout`` and ``device``."""
    examples = Examples(crops, seed=seed)
    return Batches(
        examples, batches, bad_images, collate=collate, to_device=to_device or OnDevice(crops.pose), **loading
    )
