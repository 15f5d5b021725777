"""Odd memory layouts of one tensor; without hypothesis, for tools that run where it is not installed."""

from __future__ import annotations

import torch
from torch import Tensor

LAYOUTS = ("contiguous", "channels_last", "transposed", "strided", "expanded")


def lay_out(x: Tensor, layout: str) -> Tensor:
    """The same values with other strides, differentiably."""
    if layout == "channels_last":
        return x.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == "transposed":
        return x.transpose(-1, -2).contiguous().transpose(-1, -2)
    if layout == "strided":
        return torch.stack([x, x + 1.0], dim=-1)[..., 0]
    if layout == "expanded":
        # Values must repeat for strides of zero: every case has this layout of its first example alone.
        return x[:1].expand_as(x) if len(x) else x
    return x
