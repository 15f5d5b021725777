"""What is guessed without looking at the pictures."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dynaconv.tasks import task_class
from dynaconv.tasks.classification import open_data
from dynaconv.tasks.detection.baseline import mean_box_precision, mean_boxes
from dynaconv.tasks.keypoints.baseline import mean_pose
from tasks.coco_files import write_coco
from tasks.keypoints.files import write_data

pytest.importorskip("faster_coco_eval", reason="the extra 'detection' is not installed")


def picture(number: int, *boxes: tuple[int, tuple[float, float, float, float]], crowd: bool = False) -> Any:
    """100 x 50 pixels with (label, box) in it."""
    objects = [SimpleNamespace(label=label, box=box, area=100.0, crowd=crowd) for label, box in boxes]
    return SimpleNamespace(id=number, width=100, height=50, annotations=objects)


def test_mean_boxes_by_hand() -> None:
    """Two pictures: of class 0 two boxes on average, of class 2 half a one; crowds do not count."""
    pictures = [
        picture(1, (0, (0, 0, 10, 10)), (0, (50, 20, 90, 40)), (2, (0, 0, 100, 50))),
        picture(2, (0, (10, 10, 20, 20)), (0, (60, 30, 100, 50))),
        picture(3, (1, (0, 0, 50, 50)), crowd=True),
    ]
    boxes, labels, scores = mean_boxes(pictures[:2])
    assert labels.tolist() == [0, 0, 2]
    assert boxes == pytest.approx(np.array([[0.05, 0.1, 0.15, 0.3], [0.55, 0.5, 0.95, 0.9], [0, 0, 1, 1]]))
    assert scores.tolist() == [1.0, 1.0, 0.5]
    assert mean_boxes(pictures[2:])[1].tolist() == []


def test_equal_pictures_are_guessed_and_others_are_not() -> None:
    equal = [picture(number, (0, (10, 10, 40, 30)), (1, (60, 5, 90, 45))) for number in range(1, 5)]
    assert mean_box_precision(equal, equal)["ap"] == pytest.approx(1.0)
    other = [picture(9, (0, (60, 30, 90, 50)), (1, (0, 0, 20, 20)))]
    assert mean_box_precision(equal, other) == {"ap": 0, "ap50": 0, "ap75": 0, "ar100": 0}


def test_mean_pose_by_hand() -> None:
    first = SimpleNamespace(box=(0, 0, 10, 20), keypoints=np.array([[5, 5, 2], [0, 0, 0], [1, 1, 0]], np.float32))
    second = SimpleNamespace(box=(10, 10, 30, 30), keypoints=np.array([[30, 20, 1], [15, 30, 2], [0, 0, 0]]))
    found = mean_pose([first, second])  # type: ignore[list-item]
    assert found == pytest.approx(np.array([[0.75, 0.375], [0.25, 1.0], [0.5, 0.5]]))


def test_every_task_has_its_best_metric(tmp_path: Path) -> None:
    boxes = task_class("detection").open_data(str(write_coco(tmp_path / "boxes")), image_size=64)
    # all puppets stand the same way in their boxes
    poses = task_class("keypoints").open_data(str(write_data(tmp_path / "poses")), image_size=64)
    assert 0 <= boxes.baseline()["ap"] < 0.5
    assert poses.baseline()["ap"] == pytest.approx(1.0)
    digits = open_data("digits", image_size=8)
    assert digits.baseline()["top1"] == pytest.approx(max(np.bincount(digits.evaluation_source.labels)) / 359, abs=0.01)
