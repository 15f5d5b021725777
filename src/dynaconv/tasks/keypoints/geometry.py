"""From a box in a picture to the network's crop, and back.

Coordinates here are continuous: pixel i covers ``[i, i + 1)``. Annotations count pixels, so that the centre of the
first one is 0; :data:`CENTRE` is what lies between the two. A mirror image of width W takes x to ``W - x``, and the
target of a mirrored crop is the mirror image of the crop's target, exactly.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

Matrix = np.ndarray[Any, np.dtype[np.float64]]  # (2, 3): x' = a x + b y + c
CENTRE = 0.5


class Region(NamedTuple):
    """An upright rectangle: centre and extent, in continuous coordinates."""

    x: float
    y: float
    width: float
    height: float


def region_of(box: tuple[float, float, float, float], aspect: float, padding: float) -> Region:
    """The smallest rectangle around a box with this aspect (width / height), enlarged ``padding`` times.

    Args:
        box: corners x1, y1, x2, y2.
    """
    x1, y1, x2, y2 = box
    width, height = max(x2 - x1, 1.0), max(y2 - y1, 1.0)
    width, height = max(width, height * aspect), max(height, width / aspect)
    return Region((x1 + x2) / 2, (y1 + y2) / 2, width * padding, height * padding)


def crop_matrix(region: Region, size: tuple[int, int], *, rotation: float = 0.0, mirror: bool = False) -> Matrix:
    """The map from the picture to a crop of ``size`` (height, width) that shows ``region``.

    Args:
        rotation: of the content, in degrees, clockwise on the screen.
        mirror: left and right change places after that.
    """
    height, width = size
    scale_x, scale_y = width / region.width, height / region.height
    cos, sin = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    linear = np.array([[scale_x * cos, -scale_x * sin], [scale_y * sin, scale_y * cos]])
    shift = np.array([width / 2, height / 2]) - linear @ np.array([region.x, region.y])
    matrix = np.column_stack([linear, shift])
    if mirror:
        matrix[0] = -matrix[0]
        matrix[0, 2] += width
    return matrix


def inverted(matrix: Matrix) -> Matrix:
    """The map back."""
    back = np.linalg.inv(matrix[:, :2])
    return np.column_stack([back, -back @ matrix[:, 2]])


def moved(matrix: Matrix, points: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Points ``(..., 2)`` through the map, in continuous coordinates."""
    result: np.ndarray[Any, Any] = points @ matrix[:, :2].T + matrix[:, 2]
    return result


def warped(image: Image, matrix: Matrix, size: tuple[int, int]) -> Image:
    """The crop of ``size`` (height, width) that ``matrix`` makes of a picture, bilinear; black outside the picture.

    A picture that is shrunk at least twofold is averaged over blocks of pixels first, so that no detail is lost to
    sampling.
    """
    from PIL import Image as Images

    back = inverted(matrix)
    blocks = int(np.sqrt(abs(np.linalg.det(back[:, :2]))))
    if blocks > 1:
        image = image.reduce(blocks)
        back = back / blocks
    return image.transform(
        (size[1], size[0]), Images.Transform.AFFINE, tuple(back.ravel().tolist()), Images.Resampling.BILINEAR
    )
