"""Boxes on pictures."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from dynaconv.figures import STYLES

if TYPE_CHECKING:
    from PIL.Image import Image


def draw_boxes(picture: Image, found: Sequence[dict[str, Any]]) -> Image:
    """A copy of ``picture`` with a frame, the class and the score of everything that was found.

    A class always has the same colour. The best are drawn last, over the others.

    Args:
        found: ``{"class": name, "score": p, "box": [x1, y1, x2, y2]}`` in pixels of the picture.
    """
    from PIL import ImageDraw, ImageFont

    drawn = picture.convert("RGB").copy()
    short = min(drawn.size)
    line, font = max(1, short // 200), ImageFont.load_default(max(9, short // 36))
    pencil = ImageDraw.Draw(drawn)
    for one in sorted(found, key=lambda one: one["score"]):
        colour = colour_of(one["class"])
        left, upper, right, lower = one["box"]
        corners = (min(left, right), min(upper, lower), max(left, right), max(upper, lower))
        pencil.rectangle(corners, outline=colour, width=line)
        words = f"{one['class']} {one['score']:.2f}"
        x1, y1, x2, y2 = pencil.textbbox((0, 0), words, font=font)
        width, height = x2 + 4, y2 + 2
        # above the frame, or inside where there is no room above
        x = max(0, min(left, drawn.width - width))
        y = upper - height if upper >= height else upper
        pencil.rectangle((x, y, x + width, y + height), fill=colour)
        pencil.text((x + 2 - x1, y + 1 - y1 / 2), words, fill="white", font=font)
    return drawn


def colour_of(name: str) -> str:
    """A colour that follows from the name alone, so that every picture has the same; never the black of the text."""
    colours = [style.colour for style in STYLES[1:]]
    return colours[blake2b(name.encode(), digest_size=4).digest()[0] % len(colours)]
