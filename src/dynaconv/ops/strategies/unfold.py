"""Strategy ``unfold``: the patches under the kernel as columns, then one batched matrix product.

No operation in it depends on the batch size, so an exported graph keeps the batch free.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from dynaconv.ops.call import Call
from dynaconv.ops.convolution import add_bias
from dynaconv.ops.geometry import Geometry, output_space, pad
from dynaconv.ops.strategies.strategy import Strategy


def refuses(call: Call) -> str | None:
    if call.geometry.dims == 0:
        return "a linear layer has no patches; matmul is the same product"
    return None


def convolve_each(x: Tensor, kernels: Tensor, biases: Tensor | None, geometry: Geometry) -> Tensor:
    """``y[b, g] = W[b, g] @ columns[b, g]``; columns: ``in/groups * taps`` rows, one column per output position."""
    if geometry.transposed:
        x, kernels, geometry = _as_convolution(x, kernels, geometry)
    taps = kernels.shape[3:]
    space = output_space(x.shape[2:], taps, geometry)
    patches = _columns(pad(x, [(amount, amount) for amount in geometry.padding]), taps, space, geometry)
    batch, groups = x.shape[0], geometry.groups
    columns = patches.reshape(batch, groups, x.shape[1] // groups * patches.shape[2], -1)
    weights = kernels.reshape(batch, groups, -1, columns.shape[2])
    return add_bias((weights @ columns).reshape(batch, -1, *space), biases)


def _columns(x: Tensor, taps: tuple[int, ...], space: tuple[int, ...], geometry: Geometry) -> Tensor:
    """``(B, C, *padded) -> (B, C, taps, *space)``: for every tap, the input that it reads at every output position."""
    views = []
    for tap in product(*map(range, taps)):
        window = [slice(None), slice(None)]
        for offset, length, stride, dilation in zip(tap, space, geometry.stride, geometry.dilation, strict=True):
            start = offset * dilation
            window.append(slice(start, start + stride * (length - 1) + 1, stride))
        views.append(x[tuple(window)])
    return torch.stack(views, dim=2)


def _as_convolution(x: Tensor, kernels: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor, Geometry]:
    """A transposed convolution as a plain one: zeros between the inputs, the kernel mirrored, in and out exchanged."""
    spread = [(length - 1) * stride + 1 for length, stride in zip(x.shape[2:], geometry.stride, strict=True)]
    stuffed = x.new_zeros(*x.shape[:2], *spread)
    every = tuple(slice(None, None, stride) for stride in geometry.stride)
    stuffed[(slice(None),) * 2 + every] = x
    amounts = []
    for axis, size in enumerate(kernels.shape[3:]):
        before = geometry.dilation[axis] * (size - 1) - geometry.padding[axis]
        amounts.append((before, before + geometry.output_padding[axis]))
    batch, channels, out = kernels.shape[:3]
    mirrored = kernels.flip(*range(3, kernels.dim()))
    per_group = mirrored.reshape(batch, geometry.groups, channels // geometry.groups, out, *kernels.shape[3:])
    swapped = per_group.transpose(2, 3).reshape(batch, -1, channels // geometry.groups, *kernels.shape[3:])
    plain = Geometry(dims=geometry.dims, dilation=geometry.dilation, groups=geometry.groups)
    return pad(stuffed, amounts), swapped, plain


STRATEGY = Strategy(refuses=refuses, convolve_each=convolve_each)
