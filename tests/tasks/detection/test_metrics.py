"""Average precision is pycocotools', and 0 where nothing was found."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dynaconv.data.coco import Coco
from dynaconv.data.coco_splits import open_coco_part
from dynaconv.errors import UserError
from dynaconv.tasks.detection import metrics
from dynaconv.tasks.detection.batches import EvaluationPictures, collate
from dynaconv.tasks.detection.metrics import BoxMetrics, Objects, average_precision
from tasks.coco_files import pictures_of, record, write_coco, write_file

pytest.importorskip("faster_coco_eval", reason="the extra 'detection' is not installed")


def there(coco: Coco) -> dict[int, Objects]:
    """What is annotated, as the metrics gather it."""
    reader = EvaluationPictures(coco.pictures, 32)
    return {int(target["image"]): {name: value.numpy() for name, value in target.items()} for _, target in reader}


def noisy(truth: dict[int, Objects], seed: int = 0) -> dict[int, Objects]:
    """Detections: most objects found a little beside, some twice, some as another class, some where nothing is."""
    random = np.random.default_rng(seed)
    found = {}
    for picture, objects in truth.items():
        keep = random.random(len(objects["boxes"])) < 0.8
        boxes, labels = objects["boxes"][keep], objects["labels"][keep]
        sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        moved = boxes + random.normal(0, 0.08, boxes.shape) * sides
        twice = random.random(len(boxes)) < 0.3
        boxes = np.concatenate([moved, moved[twice] + 1, random.uniform(0, 50, (1, 4)).cumsum(1)])
        labels = np.concatenate([labels, labels[twice], labels[:1] if len(labels) else [1]]).astype(int)
        labels[random.random(len(labels)) < 0.1] = 1
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 0.5)
        # rounded scores: ties, in which the order decides
        found[picture] = {"boxes": boxes, "labels": labels, "scores": random.random(len(boxes)).round(1)}
    return found


def by_pycocotools(path: Path, found: dict[int, Objects], ids: dict[int, int]) -> dict[str, float]:
    """The same numbers from the annotation file itself; ``ids`` leads from a label to the category."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    results = [
        {"image_id": picture, "category_id": ids[int(label)], "bbox": [x1, y1, x2 - x1, y2 - y1], "score": float(score)}
        for picture, objects in found.items()
        for (x1, y1, x2, y2), label, score in zip(
            objects["boxes"].tolist(), objects["labels"], objects["scores"], strict=True
        )
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: evaluation.stats[place] for name, place in (("ap", 0), ("ap50", 1), ("ap75", 2), ("ar100", 8))}


def compare_with_pycocotools(coco: Coco) -> None:
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    truth = there(coco)
    found = noisy(truth)
    ids = {label + 1: category.id for label, category in enumerate(coco.categories)}
    ours, theirs = average_precision(truth, found), by_pycocotools(coco.path, found, ids)
    assert 0.05 < ours["ap"] < 0.95
    assert ours == pytest.approx(theirs, abs=1e-6)


def test_equal_to_pycocotools(tmp_path: Path) -> None:
    """With a crowd, a picture without objects, category ids with holes and areas that are not the box's."""
    (tmp_path / "images").mkdir()
    images, annotations = pictures_of(tmp_path, 0, 30)
    for one in annotations[::3]:
        one["area"] = 200.0
    annotations.append(record(1000, 100, [40, 10, 30, 40], iscrowd=1, area=900.0))
    annotations = [one | {"area": one.get("area", one["bbox"][2] * one["bbox"][3])} for one in annotations]
    annotations = [one for one in annotations if one["image_id"] != 105]
    write_file(tmp_path, "val", images, annotations)
    compare_with_pycocotools(open_coco_part(tmp_path, keypoints=False))


def test_equal_to_pycocotools_on_coco(shared: Path) -> None:
    if not (shared / "data/coco_subset").is_dir():
        pytest.skip("no folder data/coco_subset in the shared folder")
    compare_with_pycocotools(open_coco_part(shared / "data/coco_subset", keypoints=False))


def test_perfect_detections_have_precision_1(tmp_path: Path) -> None:
    truth = there(open_coco_part(write_coco(tmp_path), keypoints=False))
    found = {picture: {**one, "scores": np.ones(len(one["boxes"]))} for picture, one in truth.items()}
    assert average_precision(truth, found)["ap"] == pytest.approx(1)


def test_no_detections_have_precision_0(tmp_path: Path) -> None:
    truth = there(open_coco_part(write_coco(tmp_path), keypoints=False))
    nothing = {"boxes": np.zeros((0, 4)), "labels": np.zeros(0), "scores": np.zeros(0)}
    for found in ({}, dict.fromkeys(truth, nothing)):
        assert average_precision(truth, found) == {"ap": 0.0, "ap50": 0.0, "ap75": 0.0, "ar100": 0.0}


@pytest.mark.parametrize("crowd", [True, False])
def test_nothing_to_be_found_is_0_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture, crowd: bool) -> None:
    (tmp_path / "images").mkdir()
    images, annotations = pictures_of(tmp_path, 0, 3)
    write_file(tmp_path, "val", images, [one | {"iscrowd": 1} for one in annotations] if crowd else [])
    truth = there(open_coco_part(tmp_path, keypoints=False))
    with caplog.at_level(logging.WARNING):
        found = {} if crowd else {100: {"boxes": np.ones((1, 4)), "labels": np.ones(1), "scores": np.ones(1)}}
        assert average_precision(truth, found)["ap"] == 0
    assert "no box to be found in the 3 pictures" in caplog.text


def test_a_missing_library_is_said_before_the_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(UserError, match=r"pip install 'dynaconv\[detection\]'"):
        BoxMetrics()


class Finds(nn.Module):
    """Returns prepared detections in the image's pixels."""

    def __init__(self, found: list[dict[str, Any]]) -> None:
        super().__init__()
        self.found = iter(found)

    def forward(self, images: list[Any]) -> list[dict[str, Any]]:
        return [next(self.found) for _ in images]


def test_boxes_are_measured_in_the_pixels_of_the_picture(tmp_path: Path) -> None:
    coco = open_coco_part(write_coco(tmp_path), keypoints=False)
    reader = EvaluationPictures(coco.pictures, 40)
    images, targets = collate([reader[row] for row in range(len(reader))])
    scale = torch.tensor([40 / 80, 40 / 60] * 2)
    found = [
        {"boxes": one["boxes"] * scale, "labels": one["labels"], "scores": torch.ones(len(one["boxes"]))}
        for one in targets
    ]
    gathered = BoxMetrics()
    model = Finds(found)
    gathered.update(model, (images[:3], targets[:3]))
    gathered.update(model, (images[3:], targets[3:]))
    assert gathered.compute()["ap"] == pytest.approx(1)


def test_processes_together_have_what_one_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process has its own pictures; gathered in any order they give the numbers of one."""
    truth = there(open_coco_part(write_coco(tmp_path, held=7), keypoints=False))
    found = noisy(truth)
    halves = [({p: truth[p] for p in own}, {p: found[p] for p in own}) for own in (list(truth)[4:], list(truth)[:4])]
    queue = [[half[part] for half in halves] for part in (0, 1)]

    def gather(parts: list[Any], own: Any) -> None:
        parts[:] = queue.pop(0)

    monkeypatch.setattr(metrics.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(metrics.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(metrics.distributed, "all_gather_object", gather)
    gathered = BoxMetrics()
    gathered._there, gathered._found = halves[0]
    assert gathered.compute() == average_precision(truth, found)
