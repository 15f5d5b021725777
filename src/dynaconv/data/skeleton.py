"""The keypoints of a category: names, limbs, pairs that swap in a mirror image, and sigmas for OKS."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dynaconv.errors import UserError

PERSON = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow"),
    *("right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle"),
    "right_ankle",
)
"""COCO's keypoints of a person."""

PERSON_SIGMAS = tuple(value / 1000 for value in (26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89))
"""Their standard deviations in object keypoint similarity, as a share of the object's size (cocodataset.org)."""


@dataclass(frozen=True, slots=True)
class Skeleton:
    """The keypoints of a category; places in ``limbs`` and ``flip_pairs`` count from 0.

    Attributes:
        names: of the keypoints.
        limbs: pairs of places, to draw.
        flip_pairs: pairs of places that change in a mirror: the file's, or names that differ in left and right alone.
        sigmas: for object keypoint similarity: the file's, COCO's for COCO's person, or ``None``.
    """

    names: tuple[str, ...]
    limbs: tuple[tuple[int, int], ...] = ()
    flip_pairs: tuple[tuple[int, int], ...] = ()
    sigmas: tuple[float, ...] | None = None


def read_skeleton(where: str, category: Mapping[str, Any]) -> Skeleton | None:
    """The skeleton of a category's record; ``None`` if it has no ``keypoints``.

    ``skeleton`` (COCO's) and ``flip_pairs`` are pairs of places that count from 1, as COCO's do, or of names;
    ``sigmas`` one number for every keypoint.

    Raises:
        UserError: a pair, or a number of sigmas, that does not fit; it begins with ``where``.
    """
    names = category.get("keypoints")
    if not names:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise UserError(f"{where}: its keypoints are {names!r}; expected a list of different names.")
    flips = category.get("flip_pairs")
    return Skeleton(
        tuple(names),
        _pairs(where, "skeleton", category.get("skeleton") or [], names),
        mirrored(names) if flips is None else _pairs(where, "flip_pairs", flips, names),
        _sigmas(where, category.get("sigmas"), names),
    )


def mirrored(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Pairs of names that differ in ``left`` and ``right`` alone.

    >>> mirrored(["snout", "leftear", "rightear"])
    ((1, 2),)
    """
    places = {name.lower(): place for place, name in enumerate(names)}
    pairs = ((place, places.get(name.replace("left", "right"))) for name, place in places.items() if "left" in name)
    return tuple((left, right) for left, right in pairs if right is not None)


def _pairs(where: str, what: str, pairs: Any, names: list[str]) -> tuple[tuple[int, int], ...]:
    places: dict[Any, int] = {name: place for place, name in enumerate(names)}
    places.update({place + 1: place for place in range(len(names))})
    try:
        return tuple((places[first], places[second]) for first, second in pairs)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{where}: '{what}' is {pairs!r}; expected pairs of its {len(names)} keypoints, by name or by place from 1."
        ) from error


def _sigmas(where: str, sigmas: Any, names: list[str]) -> tuple[float, ...] | None:
    if sigmas is None:
        return PERSON_SIGMAS if tuple(names) == PERSON else None
    if isinstance(sigmas, list) and len(sigmas) == len(names) and all(_positive(value) for value in sigmas):
        return tuple(float(value) for value in sigmas)
    raise UserError(f"{where}: 'sigmas' is {sigmas!r}; expected {len(names)} positive numbers, one for each keypoint.")


def _positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf
