"""Skeletons on pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dynaconv.figures import STYLES

if TYPE_CHECKING:
    from PIL.Image import Image

    from dynaconv.tasks.keypoints.pose import PoseSpec

LEAST_SCORE = 0.2  # of a keypoint that is drawn
LEFT, RIGHT, MIDDLE = STYLES[5].colour, STYLES[6].colour, STYLES[3].colour


def draw_poses(picture: Image, poses: Sequence[dict[str, Any]], spec: PoseSpec) -> Image:
    """A copy with every pose on it: limbs, and keypoints as dots; left orange, right blue, the others green.

    A keypoint whose score is below :data:`LEAST_SCORE` is left out with its limbs.
    """
    from PIL import ImageDraw

    drawn = picture.convert("RGB").copy()
    pencil = ImageDraw.Draw(drawn)
    thick = max(2, round(max(drawn.size) / 200))
    colours = _colours(spec)
    for pose in poses:
        points = [(point["x"], point["y"]) if point["score"] >= LEAST_SCORE else None for point in pose["keypoints"]]
        for first, second in spec.limbs:
            a, b = points[first], points[second]
            if a is not None and b is not None:
                same = colours[first] == colours[second]
                pencil.line((*a, *b), fill=colours[first] if same else MIDDLE, width=thick)
        for point, colour in zip(points, colours, strict=True):
            if point is not None:
                x, y = point
                dot = (x - 1.5 * thick, y - 1.5 * thick, x + 1.5 * thick, y + 1.5 * thick)
                pencil.ellipse(dot, fill=colour, outline="black")
    return drawn


def _colours(spec: PoseSpec) -> list[str]:
    colours = [MIDDLE] * len(spec.names)
    for first, second in spec.flip_pairs:
        left_first = "right" not in spec.names[first].lower()
        colours[first], colours[second] = (LEFT, RIGHT) if left_first else (RIGHT, LEFT)
    return colours
