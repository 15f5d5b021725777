"""The boxes that one predicts without looking at the picture: what a network must beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dynaconv.data.coco import Picture
from dynaconv.tasks.detection.metrics import Objects, average_precision

ROUNDS = 50  # of Lloyd's algorithm, at most


def mean_box_precision(train: Sequence[Picture], evaluation: Sequence[Picture]) -> dict[str, float]:
    """COCO's metrics of the boxes of :func:`mean_boxes` of ``train``, the same in every picture of ``evaluation``."""
    boxes, labels, scores = mean_boxes(train)
    there: dict[int, Objects] = {}
    found: dict[int, Objects] = {}
    for picture in evaluation:
        size = np.array([picture.width, picture.height] * 2)
        there[picture.id] = {
            "boxes": np.array([one.box for one in picture.annotations]).reshape(-1, 4),
            "labels": np.array([one.label for one in picture.annotations], dtype=np.int64) + 1,
            "area": np.array([one.area for one in picture.annotations]),
            "crowd": np.array([one.crowd for one in picture.annotations], dtype=bool),
        }
        found[picture.id] = {"boxes": boxes * size, "labels": labels + 1, "scores": scores}
    return average_precision(there, found)


def mean_boxes(pictures: Sequence[Picture]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every class as many boxes as a picture has of it on average (at least one): the class's mean boxes.

    They are the centres of that many clusters (Lloyd's algorithm) of all its boxes as shares of their pictures. A box's
    score is its cluster's boxes by the pictures: how often there is something like it.

    Returns:
        boxes ``(n, 4)``, corners as shares of the picture's sides; labels ``(n,)`` from 0; scores ``(n,)``.
    """
    shares: dict[int, list[np.ndarray]] = {}
    for picture in pictures:
        size = np.array([picture.width, picture.height] * 2, dtype=np.float64)
        for one in picture.annotations:
            if not one.crowd:
                shares.setdefault(one.label, []).append(np.array(one.box) / size)
    boxes, labels, scores = [np.empty((0, 4))], [np.empty(0, np.int64)], [np.empty(0)]
    for label, own in sorted(shares.items()):
        centres, counts = _clusters(np.stack(own), max(1, round(len(own) / len(pictures))))
        boxes.append(centres)
        labels.append(np.full(len(centres), label))
        scores.append(counts / len(pictures))
    return np.concatenate(boxes), np.concatenate(labels), np.concatenate(scores)


def _clusters(points: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres ``(count, 4)`` and sizes ``(count,)``; they begin at points that are spread evenly over the list."""
    centres = points[np.linspace(0, len(points) - 1, count).round().astype(int)].copy()
    nearest = np.zeros(len(points), dtype=np.int64)
    for step in range(ROUNDS):
        before = nearest
        nearest = np.square(points[:, None] - centres[None]).sum(axis=2).argmin(axis=1)
        if step and (nearest == before).all():
            break
        for place in np.unique(nearest):
            centres[place] = points[nearest == place].mean(axis=0)
    return centres, np.bincount(nearest, minlength=count).astype(np.float64)
