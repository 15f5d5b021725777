"""The pose that one predicts without looking at the picture: what a network must beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dynaconv.tasks.keypoints.metrics import Truth
from dynaconv.tasks.keypoints.people import Person


def mean_pose_precision(train: Sequence[Person], evaluation: Sequence[Person], truth: Truth) -> dict[str, float]:
    """The task's metrics of :func:`mean_pose` of ``train``, placed into every box of ``evaluation``.

    Args:
        truth: what is compared with; its rows are those of ``evaluation``.
    """
    pose = mean_pose(train)
    poses = []
    for row, person in enumerate(evaluation):
        x1, y1, x2, y2 = person.box
        poses.append((row, person.score, np.array([x1, y1]) + pose * np.array([x2 - x1, y2 - y1])))
    return truth.average_precision(truth.results(poses))


def mean_pose(people: Sequence[Person]) -> np.ndarray:
    """The mean place of every keypoint where it is labelled, as a share of the box ``(K, 2)``; else its middle."""
    sums = np.zeros((len(people[0].keypoints), 2))
    counts = np.zeros(len(sums))
    for person in people:
        x1, y1, x2, y2 = person.box
        labelled = person.keypoints[:, 2] > 0
        sums[labelled] += ((person.keypoints[:, :2] - [x1, y1]) / [x2 - x1, y2 - y1])[labelled]
        counts += labelled
    mean = sums / np.maximum(counts, 1)[:, None]
    mean[counts == 0] = 0.5
    return np.asarray(mean)
