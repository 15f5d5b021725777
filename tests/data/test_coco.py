"""COCO's format: what is right is read, what is wrong is named by file, image and annotation."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dynaconv.data import BadImage
from dynaconv.data.coco import Coco
from dynaconv.data.coco_file import read_coco
from dynaconv.data.coco_splits import open_coco, open_coco_part
from dynaconv.data.skeleton import PERSON, PERSON_SIGMAS, mirrored
from dynaconv.errors import UserError


def content(**changes: Any) -> dict[str, Any]:
    """A small whole file: two pictures, categories with a hole between their ids."""
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 20, "height": 10},
            {"id": 3, "file_name": "b.png", "width": 20, "height": 10},
        ],
        "annotations": [annotation(1), annotation(5, category_id=11, iscrowd=1, area=3.5)],
        "categories": [{"id": 11, "name": "dog"}, {"id": 2, "name": "cat"}],
        **changes,
    }


def annotation(number: int, **changes: Any) -> dict[str, Any]:
    return {"id": number, "image_id": 7, "category_id": 2, "bbox": [1, 2, 5, 4], **changes}


def write(folder: Path, whole: Any, name: str = "instances_train.json") -> Path:
    (folder / name).write_text(whole if isinstance(whole, str) else json.dumps(whole))
    return folder / name


def read(folder: Path, **changes: Any) -> Coco:
    return read_coco(write(folder, content(**changes)))


def test_ids_with_holes_become_labels_and_lead_back(tmp_path: Path) -> None:
    coco = read(tmp_path)
    assert coco.classes == ["cat", "dog"]
    assert coco.labels == {2: 0, 11: 1}
    assert [category.id for category in coco.categories] == [2, 11]
    first, second = coco.pictures
    assert (first.id, second.id, second.annotations) == (7, 3, ())
    plain, crowd = first.annotations
    assert (plain.id, plain.label, plain.box, plain.area, plain.crowd) == (1, 0, (1, 2, 6, 6), 20, False)
    assert (crowd.id, crowd.label, crowd.area, crowd.crowd) == (5, 1, 3.5, True)


BAD_BOXES = {
    "no area": [1, 2, 0, 4],
    "negative": [1, 2, 5, -4],
    "outside the picture": [20, 2, 5, 4],
    "left of it": [-9, 2, 5, 4],
    "four numbers": [1, 2, 5],
    "not a number": [1, 2, math.nan, 4],
    "infinite": [1, 2, math.inf, 4],
    "words": ["1", 2, 5, 4],
    "absent": None,
}


@pytest.mark.parametrize("bbox", BAD_BOXES.values(), ids=list(BAD_BOXES))
def test_bad_boxes_are_named_and_left_out(tmp_path: Path, bbox: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        coco = read(tmp_path, annotations=[annotation(1), annotation(31, bbox=bbox)])
    assert [one.id for one in coco.pictures[0].annotations] == [1]
    assert [(bad.image, bad.annotation) for bad in coco.dropped] == [(7, 31)]
    assert "annotation id 31 of image id 7" in caplog.text
    assert "instances_train.json" in caplog.text


def test_many_bad_boxes_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        coco = read(tmp_path, annotations=[annotation(number, bbox=[0, 0, 0, 0]) for number in range(500)])
    assert len(coco.dropped) == 500
    assert len(caplog.records) == 21
    assert "500 annotations in all" in caplog.text


def test_a_box_that_reaches_out_is_kept_and_can_be_cut(tmp_path: Path) -> None:
    [one] = read(tmp_path, annotations=[annotation(1, bbox=[-2, 5, 100, 100])]).pictures[0].annotations
    assert one.box == (-2, 5, 98, 105)
    assert one.box_within(20, 10) == (0, 5, 20, 10)


WRONG = {
    "unknown image": (content(annotations=[annotation(4, image_id=9)]), "annotation id 4 is of image id 9"),
    "unknown category": (content(annotations=[annotation(4, category_id=3)]), "4 of image id 7 has the category id 3"),
    "repeated annotation": (content(annotations=[annotation(4), annotation(4)]), "the id 4 stands twice"),
    "no annotation id": (content(annotations=[{"image_id": 7}]), "annotations[0] has the id None"),
    "annotations is no list": (content(annotations={}), "annotations cannot be found"),
    "no size": (content(images=[{"id": 7, "file_name": "a.png"}], annotations=[]), "image id 7 has width None"),
    "no file": (content(images=[{"id": 7, "width": 2, "height": 2}], annotations=[]), "image id 7 has the file_name"),
    "no categories": (content(categories=[]), "names no categories"),
    "a list": ([], "images and categories cannot be found"),
    "null": (None, "images and categories cannot be found"),
    "cut": (json.dumps(content())[:-30], "is not whole JSON"),
    "empty": ("", "is not whole JSON"),
    "deep": ("[" * 100_000, "is not whole JSON"),
}


@pytest.mark.parametrize(("whole", "message"), WRONG.values(), ids=list(WRONG))
def test_a_file_that_contradicts_itself_is_refused_in_one_line(tmp_path: Path, whole: Any, message: str) -> None:
    path = write(tmp_path, whole)
    with pytest.raises(UserError) as refused:
        read_coco(path)
    assert message in str(refused.value)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("path", ["", "missing.json"])
def test_a_folder_or_a_missing_file_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(UserError, match="Cannot read the annotation file"):
        read_coco(tmp_path / path)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match="is not whole JSON"):
        read_coco(tmp_path / "x.json")


def test_pictures_are_decoded_upright_and_their_size_is_compared(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side: stored 10 wide, shown 20 wide
    Image.new("RGB", (10, 20)).save(tmp_path / "images/a.png", exif=exif)
    Image.new("RGB", (10, 20)).save(tmp_path / "images/b.png")
    upright, other = read(tmp_path).pictures
    assert upright.decode().size == (20, 10)
    with pytest.raises(BadImage, match=r"10x20 pixels, and its annotations \(image id 3\) are for 20x10"):
        other.decode()


def test_a_missing_picture_is_a_bad_image(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match="there is no such file"):
        read(tmp_path).pictures[0].decode()


def test_left_and_right_change_places_by_name() -> None:
    assert mirrored(["snout", "LeftEar", "rightear", "left_only"]) == ((1, 2),)
    assert mirrored(PERSON) == tuple((place, place + 1) for place in range(1, 17, 2))
    assert len(PERSON_SIGMAS) == len(PERSON) == 17


POSE = {"id": 2, "name": "mouse", "keypoints": ["nose", "ear_left", "ear_right"], "skeleton": [[1, 2], [1, 3]]}


def test_keypoints_are_read_with_their_skeleton(tmp_path: Path) -> None:
    posed = annotation(1, keypoints=[1, 2, 2, 3, 4, 1, 0, 0, 0])
    category = {**POSE, "sigmas": [0.1, 0.2, 0.2]}
    coco = read(tmp_path, annotations=[posed, annotation(2)], categories=[category])
    skeleton = coco.categories[0].skeleton
    assert skeleton is not None
    assert (skeleton.limbs, skeleton.flip_pairs) == (((0, 1), (0, 2)), ((1, 2),))
    assert skeleton.sigmas == (0.1, 0.2, 0.2)
    first, without = coco.pictures[0].annotations
    assert first.keypoints is not None
    assert np.array_equal(first.keypoints, [[1, 2, 2], [3, 4, 1], [0, 0, 0]])
    assert without.keypoints is None


@pytest.mark.parametrize("keypoints", [[1, 2, 2], [math.nan] * 9, [1, 2, 7] * 3, "x"])
def test_bad_keypoints_are_named_and_left_out(tmp_path: Path, keypoints: Any) -> None:
    coco = read(tmp_path, annotations=[annotation(8, keypoints=keypoints)], categories=[POSE])
    assert [(bad.image, bad.annotation) for bad in coco.dropped] == [(7, 8)]


@pytest.mark.parametrize(
    "wrong", [{"skeleton": [[1, 4]]}, {"flip_pairs": [["nose", "x"]]}, {"sigmas": [0.1]}, {"skeleton": 5}]
)
def test_a_skeleton_that_does_not_fit_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="category 2"):
        read(tmp_path, categories=[{**POSE, **wrong}], annotations=[])


def test_splits_are_found_by_the_words_of_their_files(tmp_path: Path) -> None:
    folder = tmp_path / "annotations"
    folder.mkdir()
    names = ["instances_train2017", "instances_val2017", "person_keypoints_train2017", "person_keypoints_val2017"]
    for name in names:
        write(folder, content(), f"{name}.json")
    found = {keypoints: open_coco(tmp_path, keypoints=keypoints) for keypoints in (False, True)}
    assert [coco.path.stem for coco in (*found[False], *found[True])] == names
    chosen = open_coco(tmp_path, keypoints=False, train_split="instances_val2017", eval_split="train2017.json")
    assert [coco.path.stem for coco in chosen] == ["instances_val2017", "instances_train2017"]
    assert open_coco_part(f"coco/{tmp_path}", keypoints=False).path.stem == "instances_val2017"
    with pytest.raises(UserError, match="--eval-split tset: there is no such annotation file"):
        open_coco(tmp_path, keypoints=False, eval_split="tset")


def test_one_file_is_split_by_pictures_always_the_same_way(tmp_path: Path) -> None:
    images = [{"id": number, "file_name": f"{number}.png", "width": 9, "height": 9} for number in range(10)]
    path = write(tmp_path, content(images=images))
    train, held = open_coco(path, keypoints=False)
    assert (len(train.pictures), len(held.pictures)) == (8, 2)
    assert open_coco(path, keypoints=False)[1].pictures[0].id == held.pictures[0].id
    assert {one.id for one in train.pictures}.isdisjoint(one.id for one in held.pictures)
    assert len(open_coco_part(path, keypoints=False).pictures) == 10


def test_another_category_under_a_known_id_is_refused(tmp_path: Path) -> None:
    write(tmp_path, content())
    write(tmp_path, content(categories=[{"id": 2, "name": "cow"}, {"id": 11, "name": "dog"}]), "instances_val.json")
    with pytest.raises(UserError, match="category 2 is 'cow' here, and was 'cat' in training"):
        open_coco(tmp_path, keypoints=False)


def test_categories_that_evaluation_lacks_keep_the_labels(tmp_path: Path) -> None:
    write(tmp_path, content())
    write(
        tmp_path,
        content(categories=[{"id": 11, "name": "dog"}], annotations=[annotation(1, category_id=11)]),
        "instances_val.json",
    )
    _, held = open_coco(tmp_path, keypoints=False)
    assert [one.label for one in held.pictures[0].annotations] == [1]
    assert held.classes == ["cat", "dog"]


def test_nothing_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is no .*nowhere"):
        open_coco(tmp_path / "nowhere", keypoints=False)
    with pytest.raises(UserError, match="It has no JSON files"):
        open_coco(tmp_path, keypoints=False)


@pytest.mark.parametrize(
    ("name", "keypoints", "pictures", "objects", "crowds"),
    [
        ("bccd_coco", False, (205, 87), (2804, 1137), (0, 0)),
        ("coco_subset", False, (204, 120), (1971, 1121), (22, 13)),
        ("coco_subset", True, (50, 51), (131, 76), (5, 0)),
        ("mouse_keypoints", True, (92, 24), (92, 24), (0, 0)),
    ],
)
def test_real_files(
    shared: Path,
    name: str,
    keypoints: bool,
    pictures: tuple[int, int],
    objects: tuple[int, int],
    crowds: tuple[int, int],
) -> None:
    if not (shared / "data" / name).is_dir():
        pytest.skip(f"no folder data/{name} in the shared folder")
    splits = open_coco(shared / "data" / name, keypoints=keypoints)
    for coco, count, boxes, crowd in zip(splits, pictures, objects, crowds, strict=True):
        assert (len(coco.pictures), coco.dropped) == (count, ())
        annotations = [one for picture in coco.pictures for one in picture.annotations]
        assert (len(annotations), sum(one.crowd for one in annotations)) == (boxes, crowd)
        assert coco.pictures[0].decode().mode == "RGB"
