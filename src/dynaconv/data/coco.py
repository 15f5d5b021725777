"""What an annotation file in COCO's format holds: categories, pictures and their objects. Read by :mod:`.coco_file`.

Categories may have any ids; a *label* is the place of a category in the file's order of ids, from 0. Boxes are corners
``x1, y1, x2, y2`` in pixels of the upright picture, as :func:`~dynaconv.data.decode` gives it.

Source: the format of cocodataset.org.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL.Image import Image

from dynaconv.data.decoding import BadImage, decode
from dynaconv.data.skeleton import Skeleton

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Category:
    """A kind of object; ``skeleton`` is ``None`` where the file gives it no keypoints."""

    id: int
    name: str
    skeleton: Skeleton | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Annotation:
    """One object of one picture.

    Attributes:
        label: place of its category in :attr:`Coco.categories`.
        box: corners; finite, with an area, and at least partly inside the picture. They may reach out of it.
        area: the file's (of the mask, usually), by which COCO's metrics tell small from large; else the box's.
        crowd: the box stands for many objects: not trained on, and detections in it are not counted as wrong.
        keypoints: ``(K, 3)`` float32 rows ``x, y, visibility`` (0 not labelled, 1 hidden, 2 visible), or ``None``.
    """

    id: int
    label: int
    box: Box
    area: float
    crowd: bool
    keypoints: np.ndarray | None = None

    def box_within(self, width: int, height: int) -> Box:
        """The part of the box that is inside a picture of this size."""
        x1, y1, x2, y2 = self.box
        return max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of the file, and its objects (none is allowed)."""

    id: int
    path: Path
    width: int
    height: int
    annotations: tuple[Annotation, ...] = ()

    def decode(self) -> Image:
        """The upright RGB picture.

        Raises:
            BadImage: it cannot be read, or its size is not the one that the boxes were drawn for.
        """
        image = decode(self.path)
        if image.size != (self.width, self.height):
            raise BadImage(
                str(self.path),
                f"upright it has {image.width}x{image.height} pixels, and its annotations (image id {self.id}) are for "
                f"{self.width}x{self.height}",
            )
        return image


@dataclass(frozen=True, slots=True)
class BadAnnotation:
    """An annotation that was left out, and why."""

    image: int
    annotation: int
    reason: str


@dataclass(frozen=True)
class Coco:
    """An annotation file.

    Attributes:
        path: of the file.
        categories: in rising order of id.
        pictures: in the file's order.
        dropped: annotations that could not be used.
    """

    path: Path
    categories: tuple[Category, ...]
    pictures: tuple[Picture, ...]
    dropped: tuple[BadAnnotation, ...] = ()

    @property
    def classes(self) -> list[str]:
        """Names of the categories, by label."""
        return [category.name for category in self.categories]

    @cached_property
    def labels(self) -> dict[int, int]:
        """From a category's id to its label; ``categories[label].id`` leads back."""
        return {category.id: label for label, category in enumerate(self.categories)}

    def digest(self) -> str:
        """What differs where a category, a picture's name or size on the disk, or an annotation differs."""
        whole = hashlib.sha256(repr([(one.id, one.name) for one in self.categories]).encode())
        for picture in self.pictures:
            size = picture.path.stat().st_size if picture.path.is_file() else None
            whole.update(repr((picture.id, picture.path.name, picture.width, picture.height, size)).encode())
            for one in picture.annotations:
                keypoints = None if one.keypoints is None else one.keypoints.tobytes()
                whole.update(repr((one.id, one.label, one.box, one.area, one.crowd, keypoints)).encode())
        count = sum(len(picture.annotations) for picture in self.pictures)
        return f"{len(self.pictures)} pictures, {count} objects, sha256 {whole.hexdigest()[:16]}"

    def held_out(self, share: float = 0.2, seed: int = 0) -> tuple[Coco, Coco]:
        """These pictures in two parts, the second with ``share`` of them; the same for the same number of pictures."""
        count = len(self.pictures)
        order = np.random.default_rng(seed).permutation(count)
        held = set(order[: min(max(1, round(share * count)), count - 1)].tolist())
        parts = ([p for row, p in enumerate(self.pictures) if (row in held) == second] for second in (False, True))
        train, evaluation = (replace(self, pictures=tuple(part)) for part in parts)
        return train, evaluation
