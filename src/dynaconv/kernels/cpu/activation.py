"""What is done to a convolution's output in the pass that computes it."""

from __future__ import annotations

import math
from typing import NamedTuple

CURVES = ("clamp", "silu", "hardswish")  # in the order of activation.h


class Activation(NamedTuple):
    """``clamp(y, low, high)``, or ``y * sigmoid(y)``, or ``y * clamp(y + 3, 0, 6) / 6``; see :data:`CURVES`."""

    curve: str = "clamp"
    low: float = -math.inf
    high: float = math.inf

    @property
    def number(self) -> int:
        """Its number in activation.h."""
        return CURVES.index(self.curve)


NOTHING = Activation()
RELU = Activation(low=0.0)
