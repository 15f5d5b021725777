"""What is kept with a keypoint network's weights: its keypoints, and how a person is cropped for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pydantic import Field, model_validator
from typing_extensions import Self

from dynaconv.data import Frozen
from dynaconv.data.opening import LARGEST_SIDE
from dynaconv.data.skeleton import PERSON, Skeleton
from dynaconv.errors import UserError, suggest
from dynaconv.tasks.keypoints.heatmaps import STRIDE

NETWORK_STRIDE = 32
"""By which the backbones shrink; both sides of a crop are multiples of it."""

PERSON_UPPER = PERSON[:11]
MOST_PADDING = 100


class PoseSpec(Frozen):
    """The keypoints of a category and the crop that the network sees; saved with the weights.

    Attributes:
        category: its name.
        names: of the keypoints.
        limbs, flip_pairs: pairs of places in ``names``, to draw, and that change in a mirror.
        sigmas: of object keypoint similarity, one for every keypoint.
        upper: places of the upper body, for half-body augmentation; empty for none.
        image_size: height and width of the crop.
        padding: the crop is so much larger than the smallest rectangle of its aspect around the box.
        mean, std: of the pixels / 255.
    """

    category: str
    names: tuple[str, ...]
    limbs: tuple[tuple[int, int], ...] = ()
    flip_pairs: tuple[tuple[int, int], ...] = ()
    sigmas: tuple[float, ...]
    upper: tuple[int, ...] = ()
    image_size: tuple[int, int] = (256, 192)
    padding: float = Field(default=1.25, gt=0, le=MOST_PADDING)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if any(not 0 < side <= LARGEST_SIDE or side % NETWORK_STRIDE for side in self.image_size):
            raise ValueError(
                f"image_size is {self.image_size[0]}x{self.image_size[1]}; expected height and width that the "
                f"network's stride of {NETWORK_STRIDE} divides, such as 256x192"
            )
        if len(self.sigmas) != len(self.names) or not all(0 < sigma < math.inf for sigma in self.sigmas):
            raise ValueError(
                f"sigmas are {list(self.sigmas)}; expected {len(self.names)} positive numbers, one for each keypoint"
            )
        return self

    @property
    def heat_size(self) -> tuple[int, int]:
        """Rows and columns of a heat map."""
        return self.image_size[0] // STRIDE, self.image_size[1] // STRIDE

    @property
    def aspect(self) -> float:
        """Width of the crop by its height."""
        return self.image_size[1] / self.image_size[0]

    @property
    def swapped(self) -> list[int]:
        """For every keypoint the place of its partner in a mirror, or its own."""
        places = list(range(len(self.names)))
        for left, right in self.flip_pairs:
            places[left], places[right] = right, left
        return places


def make_pose(
    category: str,
    skeleton: Skeleton,
    *,
    sigmas: float | Sequence[float] | None = None,
    flip_pairs: Sequence[Sequence[str]] | None = None,
    upper_body: Sequence[str] | None = None,
    **crop: Any,
) -> PoseSpec:
    """The keypoints of an annotation file, with what the file leaves open or what shall be otherwise.

    Args:
        sigmas: one number for all keypoints, or one for each; the file's, or COCO's for COCO's person, if ``None``.
        flip_pairs: pairs of names; the file's, or the names that differ in left and right alone, if ``None``.
        upper_body: names; COCO's for COCO's person, or none, if ``None``.
        crop: ``image_size``, ``padding``, ``mean``, ``std``.

    Raises:
        UserError: no sigmas anywhere, or a name that is not a keypoint.
    """
    names = skeleton.names
    known = skeleton.sigmas if sigmas is None else sigmas
    if known is None:
        raise UserError(
            f"Nobody says how exactly the keypoints of {category!r} can be placed, which their similarity (OKS) is "
            "measured by. Pass one number for all or one for each, e.g. --data-arg sigmas=0.05, or write 'sigmas' into "
            "the category of the annotation file."
        )
    upper = (PERSON_UPPER if names == PERSON else ()) if upper_body is None else upper_body
    return PoseSpec(
        category=category,
        names=names,
        limbs=skeleton.limbs,
        flip_pairs=skeleton.flip_pairs if flip_pairs is None else _pairs(flip_pairs, names),
        sigmas=(float(known),) * len(names) if isinstance(known, (int, float)) else tuple(known),
        upper=tuple(_place(name, names) for name in upper),
        **{name: value for name, value in crop.items() if value is not None},
    )


def _place(name: str, names: Sequence[str]) -> int:
    if name not in names:
        raise UserError(f"There is no keypoint {name!r}. {suggest(str(name), names)}")
    return names.index(name)


def _pairs(pairs: Sequence[Sequence[str]], names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    found = []
    for pair in pairs:
        if isinstance(pair, str) or len(pair) != 2:
            raise UserError(f"flip_pairs has {pair!r}; expected pairs of names, e.g. [['leftear', 'rightear']]")
        found.append((_place(pair[0], names), _place(pair[1], names)))
    places = [place for pair in found for place in pair]
    if len(set(places)) < len(places):
        raise UserError(f"flip_pairs is {list(pairs)!r}; expected every keypoint in one pair at most")
    return tuple(found)
