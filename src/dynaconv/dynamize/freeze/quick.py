"""A frozen layer on a CPU, in channels_last: its products by torch, what surrounds them by kernels of our own.

A 1x1 layer is one product per example, then one pass that adds the bias, clamps, and sums for the next router while the
output is in the cache. A depthwise layer is one pass in all. Other layers run as without these kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from dynaconv.dynamize.freeze.handed import hand_on
from dynaconv.native import depthwise, inference
from dynaconv.native.arguments import EVERYTHING
from dynaconv.ops import Geometry, loop, matmul

if TYPE_CHECKING:
    from dynaconv.dynamize.freeze.layer import FrozenLayer

Form = Literal["product", "depthwise"]


def form_of(geometry: Geometry, kernel_shape: Sequence[int]) -> Form | None:
    """How a layer of this geometry and kernel can run here: ``"product"``, ``"depthwise"``, or None."""
    out, per_group, *taps = kernel_shape
    if geometry.dims != 2:
        return None
    if geometry.groups == 1 and matmul.fits(geometry, taps) and matmul.keeps(geometry):
        return "product"
    return "depthwise" if per_group == 1 and out == geometry.groups else None


def run(layer: FrozenLayer, x: Tensor, routing: Tensor, geometry: Geometry) -> Tensor:
    """``clamp(conv(x[b], kernel[b]) + bias[b])``, and its sums handed on; ``x`` is ``readable``."""
    sums = torch.zeros(x.shape[0], layer.kernel_shape[0])
    y = (_product if layer.form == "product" else _depthwise)(layer, x, routing, geometry, sums)
    hand_on(y, sums)
    return y


def _depthwise(layer: FrozenLayer, x: Tensor, routing: Tensor, geometry: Geometry, sums: Tensor) -> Tensor:
    moves = geometry.stride, geometry.padding, geometry.dilation
    taps, bias = layer.mixed_kernels(routing), _bias(layer, routing)
    limits = layer.limits or EVERYTHING
    return depthwise.depthwise(x, taps, layer.kernel_shape[2:], bias, *moves, limits=limits, sums=sums)


def _product(layer: FrozenLayer, x: Tensor, routing: Tensor, geometry: Geometry, sums: Tensor) -> Tensor:
    batch, inputs, height, width = x.shape
    rows = x.permute(0, 2, 3, 1).view(batch, height * width, inputs)
    y = torch.empty(batch, height * width, layer.kernel_shape[0])
    bias, limits = _bias(layer, routing), layer.limits or EVERYTHING
    if batch == 1:
        torch.mm(rows[0], layer.mixed_kernels(routing)[0], out=y[0])
        inference.finish(y, bias, limits, sums)
    else:
        for piece in loop.pieces(batch, layer.bank[0].numel() * x.element_size()):
            torch.bmm(rows[piece], layer.mixed_kernels(routing[piece]), out=y[piece])
            own = bias if bias is None or bias.dim() == 1 else bias[piece]
            inference.finish(y[piece], own, limits, sums[piece])
    return y.view(batch, height, width, -1).permute(0, 3, 1, 2)


def _bias(layer: FrozenLayer, routing: Tensor) -> Tensor | None:
    return layer.bias if layer.biases is None else layer.mixed_biases(routing)
