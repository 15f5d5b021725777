"""The boxes to crop: of an annotation file's persons, or of a person detector.

"Person" stands for whatever the keypoints are of.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dynaconv.data.coco import Box, Category, Coco, Picture
from dynaconv.data.coco_file import is_number
from dynaconv.errors import UserError, suggest
from dynaconv.files import read_json

log = logging.getLogger(__name__)

Keypoints = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """One box of one picture.

    Attributes:
        box: corners, continuous.
        score: of the detector; 1 for an annotated box.
        keypoints: ``(K, 3)`` rows of x, y, visibility; all 0 for a detected box.
    """

    picture: Picture
    box: Box
    score: float
    keypoints: Keypoints


def category_with_keypoints(coco: Coco, name: str | None = None) -> tuple[int, Category]:
    """The label and the category whose keypoints are meant: the one of that name, or the only one that has any.

    Raises:
        UserError: none has keypoints, or several have and no name was given.
    """
    having = {category.name: (label, category) for label, category in enumerate(coco.categories) if category.skeleton}
    if not having:
        raise UserError(
            f"{coco.path}: no category has keypoints (a list of their names under 'keypoints'). Is it a file for "
            "detection? COCO's are called person_keypoints_*.json."
        )
    if name is None and len(having) > 1:
        raise UserError(
            f"{coco.path}: the categories {', '.join(having)} have keypoints; choose with --data-arg category=NAME"
        )
    if name is not None and name not in having:
        raise UserError(f"{coco.path}: no category {name!r} has keypoints. {suggest(name, having)}")
    return having[name] if name is not None else next(iter(having.values()))


def annotated(coco: Coco, label: int) -> list[Person]:
    """The persons with at least one labelled keypoint inside their picture; crowds are left out.

    A keypoint that is labelled outside the picture counts as not labelled.
    """
    people: list[Person] = []
    outside = 0
    for picture in coco.pictures:
        for annotation in picture.annotations:
            if annotation.label != label or annotation.crowd or annotation.keypoints is None:
                continue
            keypoints = annotation.keypoints.copy()
            far = (keypoints[:, 2] > 0) & ~_inside(keypoints, picture)
            outside += int(far.sum())
            keypoints[far, 2] = 0
            if (keypoints[:, 2] > 0).any():
                people.append(Person(picture, annotation.box, 1.0, keypoints))
    if outside:
        log.warning("%s: %d keypoints are labelled outside their pictures and not trained on", coco.path, outside)
    return people


def _inside(keypoints: Keypoints, picture: Picture) -> np.ndarray[Any, np.dtype[np.bool_]]:
    x, y = keypoints[:, 0], keypoints[:, 1]
    inside: np.ndarray[Any, np.dtype[np.bool_]] = (x >= -0.5) & (x < picture.width) & (y >= -0.5) & (y < picture.height)
    return inside


def detected(path: str | Path, coco: Coco, category: Category, least_score: float = 0.0) -> list[Person]:
    """The boxes of a person detector, from a COCO results file: a list of ``image_id, category_id, bbox, score``.

    Boxes of other pictures and categories are left out; what cannot be used is named in the log.

    Raises:
        UserError: no such file, or not of this form.
    """
    assert category.skeleton is not None
    pictures = {picture.id: picture for picture in coco.pictures}
    nothing = np.zeros((len(category.skeleton.names), 3), np.float32)
    people, others = [], 0
    for record in read_results(path):
        number = record.get("image_id")
        picture = pictures.get(number) if isinstance(number, int) else None
        if picture is None or record.get("category_id", category.id) != category.id:
            others += 1
            continue
        found = _box(record, picture)
        if isinstance(found, str):
            log.warning("%s: left out a box of image id %d: %s", path, picture.id, found)
        elif found[1] >= least_score:
            people.append(Person(picture, *found, nothing))
    if others:
        log.info("%s: %d boxes are of other pictures or categories", path, others)
    return people


def read_results(path: str | Path) -> list[dict[str, Any]]:
    """The records of a COCO results file.

    Raises:
        UserError: it cannot be read or is no list of objects.
    """
    try:
        content = read_json(Path(path))
    except OSError as error:
        raise UserError(f"Cannot read the boxes {path}: {error.strerror or error}.") from error
    except ValueError as error:
        raise UserError(f"The boxes {path} are not whole JSON ({error}); use another copy.") from error
    if not isinstance(content, list) or not all(isinstance(record, dict) for record in content):
        raise UserError(
            f"{path} is not in COCO's format for results: expected a list of objects with image_id, category_id, bbox "
            "and score."
        )
    return content


def _box(record: dict[str, Any], picture: Picture | None = None) -> tuple[Box, float] | str:
    """The corners and the score, or what is wrong."""
    numbers, score = record.get("bbox"), record.get("score", 1.0)
    if not isinstance(numbers, list) or len(numbers) != 4 or not all(is_number(number) for number in [*numbers, score]):
        return f"bbox is {numbers!r} and score {score!r}; expected four numbers and one"
    x, y, width, height = (float(number) for number in numbers)
    if width <= 0 or height <= 0:
        return f"the box {numbers} has no area"
    if picture is None:
        return (x, y, x + width, y + height), float(score)
    if x >= picture.width or y >= picture.height or x + width <= 0 or y + height <= 0:
        return f"the box {numbers} is outside the picture of {picture.width}x{picture.height} pixels"
    return (x, y, x + width, y + height), float(score)


@dataclass(frozen=True, slots=True)
class FileBox:
    """One box of an image file without annotations; the whole picture if ``box`` is ``None``."""

    path: Path
    box: Box | None = None
    score: float = 1.0


def in_files(paths: Sequence[Path], boxes: str | Path | None) -> list[tuple[int, FileBox]]:
    """What to crop from image files: every box of a file of results, or the whole pictures if there are no ``boxes``.

    A result belongs to a file by its ``file_name``, or else by its ``image_id``, which is the number that COCO's file
    names are.

    Returns:
        pairs of the file's number in ``paths`` and the box, in the order of the files.
    """
    if boxes is None:
        return [(number, FileBox(path)) for number, path in enumerate(paths)]
    numbers: dict[str, list[int]] = {}
    for number, path in enumerate(paths):
        for key in {path.name, path.stem.lstrip("0") or "0"}:
            numbers.setdefault(key, []).append(number)
    found: list[tuple[int, FileBox]] = []
    for record in read_results(boxes):
        key = Path(str(record["file_name"])).name if "file_name" in record else str(record.get("image_id"))
        for number in numbers.get(key, []):
            box = _box(record)
            if isinstance(box, str):
                log.warning("%s: left out a box of %s: %s", boxes, paths[number], box)
            else:
                found.append((number, FileBox(paths[number], *box)))
    return sorted(found, key=lambda pair: pair[0])
