"""How the bank of a frozen layer lies: in the order in which it is read.

``"panels"``, dense layers over images: ``(K, ceil(out / 32), taps * in, 32)``, the last panel filled up with zeros.
``"taps"``, depthwise layers over images: ``(K, taps, out)``.
``"rows"``, all others: ``(K, out, in/groups * taps)``, or ``(K, in, out)`` of linear and 1x1 layers in one group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from dynaconv.kernels.cpu.convolve import PANEL
from dynaconv.ops import Geometry

Layout = Literal["panels", "taps", "rows"]

# The dimension of the bank that the weights of one output channel lie along; the others are that channel's place.
ALONG: dict[Layout, int] = {"panels": 2, "taps": 1, "rows": 2}


def layout_of(geometry: Geometry, kernel_shape: Sequence[int]) -> Layout:
    """The layout of a layer whose kernel is ``(out, in/groups, *taps)``."""
    out, per_group = kernel_shape[:2]
    if geometry.dims != 2:
        return "rows"
    if geometry.groups == 1:
        return "panels"
    return "taps" if per_group == 1 and out == geometry.groups else "rows"


def lay_out(kernels: Tensor, layout: Layout) -> Tensor:
    """``(K, out, in/groups, *taps)`` to the layout."""
    if layout == "rows":
        return kernels.flatten(2)
    if layout == "taps":
        return kernels.flatten(2).transpose(1, 2)
    experts, out = kernels.shape[:2]
    rows = kernels.flatten(3).permute(0, 3, 2, 1).reshape(experts, -1, out)  # taps outside, input channels inside
    rows = F.pad(rows, (0, -out % PANEL))
    return rows.view(experts, rows.shape[1], -1, PANEL).transpose(1, 2)


def read(mixed: Tensor, layout: Layout, kernel_shape: Sequence[int]) -> Tensor:
    """``(b, ...)`` in the layout to ``(b, out, in/groups, *taps)``, a view where that is possible."""
    if layout == "rows":
        return mixed.view(-1, *kernel_shape)
    if layout == "taps":
        return mixed.transpose(1, 2).reshape(-1, *kernel_shape)
    out, inputs, *taps = kernel_shape
    rows = mixed.transpose(1, 2).reshape(mixed.shape[0], -1, inputs, mixed.shape[1] * PANEL)[..., :out]
    return rows.permute(0, 3, 2, 1).unflatten(3, taps)
