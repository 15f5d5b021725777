"""Whose crops there are: the faults of annotation and detection files."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from dynaconv.data.coco import Coco
from dynaconv.data.coco_file import read_coco
from dynaconv.errors import UserError
from dynaconv.tasks.keypoints import open_data
from dynaconv.tasks.keypoints.people import annotated, category_with_keypoints, detected, in_files
from tasks.keypoints.files import content, puppet, write_data

NOTHING = [0] * 12


def read(folder: Path, whole: dict[str, Any]) -> Coco:
    write_data(folder, whole)
    return read_coco(folder / "keypoints_train.json")


def people(folder: Path, *annotations: dict[str, Any]) -> list[int]:
    """The pictures of the persons that are found in a file of three pictures."""
    coco = read(folder, content(3, list(annotations)))
    return [person.picture.id for person in annotated(coco, category_with_keypoints(coco)[0])]


def test_pictures_without_people_and_people_without_keypoints_are_left_out(tmp_path: Path) -> None:
    unlabelled = puppet(2, 2, keypoints=NOTHING, num_keypoints=0)
    without = {name: value for name, value in puppet(3, 2).items() if name != "keypoints"}
    crowd = puppet(4, 3, iscrowd=1)
    other = puppet(5, 3, category_id=1)
    assert people(tmp_path, puppet(1, 1), unlabelled, without, crowd, other) == [1]


@pytest.mark.parametrize(
    "annotations",
    [[], [puppet(1, 1, iscrowd=1)], [puppet(1, 1, keypoints=NOTHING)], [puppet(1, 1, bbox=[10, 10, 0, 5])]],
    ids=["nobody", "crowd only", "no keypoints", "box without area"],
)
def test_nobody_to_train_on_is_said(annotations: list[dict[str, Any]], tmp_path: Path) -> None:
    write_data(tmp_path, content(3, annotations))
    with pytest.raises(UserError, match="no puppet has a labelled keypoint; there is nothing to train on"):
        open_data(str(tmp_path))


def test_keypoints_outside_the_picture_are_not_trained_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    far = puppet(1, 1)
    far["keypoints"][0:3] = [-30, 10, 2]
    far["keypoints"][3:6] = [64, 20, 1]
    beyond = puppet(2, 2, keypoints=[900, 900, 2] * 4)
    coco = read(tmp_path, content(2, [far, beyond]))
    (person,) = annotated(coco, 1)
    assert person.keypoints[:, 2].tolist() == [0, 0, 2, 2]
    assert "6 keypoints are labelled outside their pictures" in caplog.text
    assert coco.pictures[0].annotations[0].keypoints is not None
    assert coco.pictures[0].annotations[0].keypoints[0, 2] == 2, "the annotation itself stays"


def test_the_category_is_chosen_by_name_or_is_the_only_one(tmp_path: Path) -> None:
    whole = content(2)
    assert category_with_keypoints(read(tmp_path, whole))[1].name == "puppet"
    whole["categories"][0]["keypoints"] = ["a", "b"]
    coco = read(tmp_path, {**whole, "annotations": []})
    with pytest.raises(UserError, match="stage, puppet have keypoints; choose"):
        category_with_keypoints(coco)
    assert category_with_keypoints(coco, "stage")[0] == 0
    with pytest.raises(UserError, match="Did you mean 'puppet'"):
        category_with_keypoints(coco, "pupet")
    boxes_only = {**whole, "categories": [{"id": 1, "name": "stage"}], "annotations": []}
    with pytest.raises(UserError, match="no category has keypoints"):
        category_with_keypoints(read(tmp_path, boxes_only))


def test_detected_boxes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    coco = read(tmp_path, content(3))
    results = [
        {"image_id": 2, "category_id": 3, "bbox": [1, 2, 10, 20], "score": 0.5},
        {"image_id": 2, "category_id": 3, "bbox": [1, 2, 10, 20], "score": 0.1},
        {"image_id": 2, "category_id": 1, "bbox": [1, 2, 10, 20], "score": 0.9},
        {"image_id": 99, "category_id": 3, "bbox": [1, 2, 10, 20], "score": 0.9},
        {"image_id": [[]], "category_id": 3, "bbox": [1, 2, 10, 20], "score": 0.9},
        {"image_id": 1, "category_id": 3, "bbox": [1, 2, 0, 20], "score": 0.9},
        {"image_id": 1, "category_id": 3, "bbox": [100, 2, 5, 20], "score": 0.9},
        {"image_id": 1, "category_id": 3, "bbox": "here", "score": 0.9},
        {"image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4], "score": float("nan")},
    ]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    with caplog.at_level(logging.INFO):
        (person,) = detected(path, coco, coco.categories[1], least_score=0.2)
    assert (person.picture.id, person.box, person.score) == (2, (1, 2, 11, 22), 0.5)
    assert not person.keypoints.any()
    assert caplog.text.count("left out a box of image id 1") == 4
    assert "3 boxes are of other pictures or categories" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"), [(None, "Cannot read the boxes"), ("[{", "not whole JSON"), ('{"a": 1}', "expected a list")]
)
def test_results_that_cannot_be_read(text: str | None, message: str, tmp_path: Path) -> None:
    coco = read(tmp_path, content(1))
    if text is not None:
        (tmp_path / "results.json").write_text(text)
    with pytest.raises(UserError, match=message):
        detected(tmp_path / "results.json", coco, coco.categories[1])


def test_boxes_of_image_files(tmp_path: Path) -> None:
    paths = [tmp_path / "000012.png", tmp_path / "cat.png", tmp_path / "000000.png"]
    assert [(number, box.box) for number, box in in_files(paths, None)] == [(0, None), (1, None), (2, None)]
    results = [
        {"file_name": "somewhere/cat.png", "bbox": [1, 2, 3, 4], "score": 0.5},
        {"image_id": 0, "bbox": [5, 6, 7, 8]},
        {"image_id": 12, "bbox": [1, 1, 1, 1], "score": 0.25},
        {"image_id": 12, "bbox": [1, 1, 0, 1], "score": 0.25},
        {"image_id": 13, "bbox": [1, 1, 1, 1]},
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(results))
    found = in_files(paths, tmp_path / "boxes.json")
    assert [(number, box.box, box.score) for number, box in found] == [
        (0, (1, 1, 2, 2), 0.25),
        (1, (1, 2, 4, 6), 0.5),
        (2, (5, 6, 12, 14), 1.0),
    ]
