"""``read_coco``: an annotation file in COCO's format, checked, and what is wrong in it named by image and annotation.

Keys beyond the format of cocodataset.org are ignored, ``sigmas`` and ``flip_pairs`` of a category apart.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard, cast

import numpy as np

from dynaconv.data.coco import Annotation, BadAnnotation, Box, Category, Coco, Picture
from dynaconv.data.skeleton import Skeleton, read_skeleton
from dynaconv.errors import UserError
from dynaconv.files import read_json

log = logging.getLogger(__name__)

LARGEST_ID, LARGEST_SIDE = 2**63 - 1, 10**9  # pixels
NAMED = 20  # bad annotations that are named in the log; the others are counted


def read_coco(path: str | Path, images: str | Path | None = None, *, known: Sequence[Category] | None = None) -> Coco:
    """Read an annotation file.

    Args:
        path: of the JSON file.
        images: the folder that ``file_name`` is in; looked for near the file if ``None``.
        known: the categories that training had, whose labels are to be used; the file may lack some, not add any.

    Raises:
        UserError: no such file, broken JSON, or a file that contradicts itself (unknown or repeated ids) or ``known``.
    """
    path = Path(path).expanduser()
    content = _read_json(path)
    categories = _categories(path, content)
    if known is not None:
        _check_known(path, categories, known)
        categories = tuple(known)
    records = _by_id(path, content, "images")
    folder = _images_folder(path, records, None if images is None else Path(images).expanduser())
    found: dict[int, list[Annotation]] = {number: [] for number in records}
    dropped: list[BadAnnotation] = []
    sizes = {number: _size(path, number, record) for number, record in records.items()}
    labels = {category.id: label for label, category in enumerate(categories)}
    for number, record in _by_id(path, content, "annotations").items():
        image, label = _references(path, number, record, records, labels)
        try:
            found[image].append(_annotation(number, label, record, sizes[image], categories[label].skeleton))
        except _Bad as bad:
            dropped.append(BadAnnotation(image, number, str(bad)))
    _report(path, dropped)
    pictures = tuple(
        Picture(number, folder / _file_name(path, number, record), *sizes[number], tuple(found[number]))
        for number, record in records.items()
    )
    return Coco(path, categories, pictures, tuple(dropped))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except OSError as error:
        raise UserError(f"Cannot read the annotation file {path}: {error.strerror or error}.") from error
    except ValueError as error:
        raise UserError(
            f"The annotation file {path} is not whole JSON ({error}). Expected COCO's format; use another copy."
        ) from error
    missing = [name for name in ("images", "categories") if not _is_list(content, name)]
    if missing or not isinstance(content.get("annotations", []), list):
        raise UserError(
            f"{path} is not in COCO's format: expected an object with the lists 'images', 'annotations' and "
            f"'categories'; {' and '.join(missing) or 'annotations'} cannot be found."
        )
    return {"annotations": [], **content}


def _is_list(content: Any, name: str) -> bool:
    return isinstance(content, dict) and isinstance(content.get(name), list)


def _by_id(path: Path, content: Mapping[str, Any], kind: str) -> dict[int, dict[str, Any]]:
    """The records of one list, each under its id."""
    records: dict[int, dict[str, Any]] = {}
    for place, record in enumerate(content[kind]):
        number = record.get("id") if isinstance(record, dict) else None
        if not isinstance(number, int) or isinstance(number, bool) or abs(number) > LARGEST_ID:
            raise UserError(f"{path}: {kind}[{place}] has the id {number!r}; expected a whole number of 64 bits.")
        if number in records:
            raise UserError(f"{path}: the id {number} stands twice in '{kind}'. Every id must be there once.")
        records[number] = record
    return records


def _categories(path: Path, content: Mapping[str, Any]) -> tuple[Category, ...]:
    records = _by_id(path, content, "categories")
    if not records:
        raise UserError(f"{path} names no categories; expected at least one.")
    return tuple(
        Category(number, str(record.get("name", number)), read_skeleton(f"{path}: category {number}", record))
        for number, record in sorted(records.items())
    )


def _check_known(path: Path, found: Sequence[Category], known: Sequence[Category]) -> None:
    names = {category.id: category.name for category in known}
    for category in found:
        if names.get(category.id) != category.name:
            there = f"was {names[category.id]!r}" if category.id in names else "was not there"
            raise UserError(f"{path}: the category {category.id} is {category.name!r} here, and {there} in training.")


def _size(path: Path, number: int, record: Mapping[str, Any]) -> tuple[int, int]:
    width, height = record.get("width"), record.get("height")
    sides = (width, height)
    if not all(isinstance(side, int) and 0 < side <= LARGEST_SIDE for side in sides):
        raise UserError(f"{path}: image id {number} has width {width!r} and height {height!r}; expected pixels.")
    return cast(tuple[int, int], sides)


def _file_name(path: Path, number: int, record: Mapping[str, Any]) -> str:
    name = record.get("file_name")
    if not isinstance(name, str) or not name:
        raise UserError(f"{path}: image id {number} has the file_name {name!r}; expected the name of a picture.")
    return name


def _references(
    path: Path, number: int, record: Mapping[str, Any], images: Mapping[int, Any], labels: Mapping[int, int]
) -> tuple[int, int]:
    """The image id and the label of an annotation."""
    image, category = record.get("image_id"), record.get("category_id")
    if not isinstance(image, int) or image not in images:
        raise UserError(f"{path}: annotation id {number} is of image id {image!r}, which 'images' does not have.")
    if not isinstance(category, int) or category not in labels:
        raise UserError(
            f"{path}: annotation id {number} of image id {image} has the category id {category!r}, which 'categories' "
            f"does not have ({', '.join(map(str, list(labels)[:10]))}{' ...' if len(labels) > 10 else ''})."
        )
    return image, labels[category]


class _Bad(ValueError):  # noqa: N818 - what it is, as BadImage
    """Why an annotation cannot be used."""


def _annotation(
    number: int, label: int, record: Mapping[str, Any], size: tuple[int, int], skeleton: Skeleton | None
) -> Annotation:
    box = _box(record.get("bbox"), size)
    given = record.get("area")
    area = float(given) if is_number(given, LARGEST_SIDE**2) and given >= 0 else (box[2] - box[0]) * (box[3] - box[1])
    keypoints = None if skeleton is None else _keypoints(record.get("keypoints"), len(skeleton.names))
    return Annotation(number, label, box, area, record.get("iscrowd") in (1, True), keypoints)


def _box(bbox: Any, size: tuple[int, int]) -> Box:
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(is_number(value) for value in bbox):
        raise _Bad(f"the box {bbox!r} is not four numbers")
    x, y, width, height = (float(value) for value in bbox)
    if width <= 0 or height <= 0:
        raise _Bad(f"the box {bbox} has no area")
    if x >= size[0] or y >= size[1] or x + width <= 0 or y + height <= 0:
        raise _Bad(f"the box {bbox} is outside the picture of {size[0]}x{size[1]} pixels")
    return x, y, x + width, y + height


def _keypoints(values: Any, count: int) -> np.ndarray | None:
    if values is None:
        return None
    if not isinstance(values, list) or len(values) != 3 * count or not all(is_number(value) for value in values):
        raise _Bad(f"its keypoints are not {3 * count} numbers (x, y, visibility of {count})")
    rows = np.array(values, np.float32).reshape(count, 3)
    if not np.isin(rows[:, 2], (0, 1, 2)).all():
        raise _Bad(f"the visibilities of its keypoints are {sorted(set(rows[:, 2].tolist()))}; expected 0, 1 and 2")
    return rows


def is_number(value: Any, most: float = LARGEST_SIDE) -> TypeGuard[float]:
    """Whether this is a number, and one that a picture can have."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= most


def _images_folder(path: Path, records: Mapping[int, Mapping[str, Any]], given: Path | None) -> Path:
    """``given``, or the first folder near the file that has one of its first pictures."""
    if given is not None:
        if not given.is_dir():
            raise UserError(f"There is no folder of pictures {given}.")
        return given
    # beside the file, or COCO's own layout: annotations/instances_val2017.json and val2017/ or images/val2017/
    parts = ["", *path.stem.split("_")]
    roots = [path.parent / "images", path.parent, path.parent.parent / "images", path.parent.parent]
    folders = [root / part for root in roots for part in parts]
    names = [str(record.get("file_name", "")) for record in list(records.values())[:10]]
    for folder in folders:
        if any(name and (folder / name).is_file() for name in names):
            return folder
    return roots[0] if roots[0].is_dir() else roots[1]


def _report(path: Path, dropped: list[BadAnnotation]) -> None:
    for bad in dropped[:NAMED]:
        log.warning("%s: left out annotation id %d of image id %d: %s", path, bad.annotation, bad.image, bad.reason)
    if len(dropped) > NAMED:
        log.warning("%s: left out %d annotations in all", path, len(dropped))
