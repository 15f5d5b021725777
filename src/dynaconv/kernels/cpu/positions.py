"""Which input pixel every output pixel of a convolution reads at every tap, as a table; and that of its gradient."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Pair = tuple[int, ...]


class Positions(NamedTuple):
    """The tables that ``Convolution`` of convolve.h names.

    Attributes:
        size: height and width of the output.
        reads: ``(pixels, taps)`` int32: the input pixel's number, -1 outside; None where each reads its own.
        writes: ``(pixels,)`` int32: the output pixel's number, where they are not computed in order.
    """

    size: Pair
    reads: Tensor | None
    writes: Tensor | None


def output_size(
    size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> tuple[int, int]:
    """Height and width of a convolution's output over ``size``; ValueError where the kernel does not fit."""
    height, width = (
        (extent + 2 * pad - spread * (taps - 1) - 1) // step + 1
        for extent, taps, step, pad, spread in zip(size, kernel, stride, padding, dilation, strict=True)
    )
    if min(height, width) < 1:
        raise ValueError(f"the kernel {tuple(kernel)} does not fit into the padded input of {tuple(size)}")
    return height, width


@functools.lru_cache(maxsize=256)
def positions(size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Positions:
    """The table of a convolution over ``size``; ValueError where the kernel does not fit."""
    out = output_size(size, kernel, stride, padding, dilation)
    if kernel == (1, 1) and out == size and stride == (1, 1):
        return Positions(out, None, None)
    rows = [
        torch.arange(count)[:, None] * step - pad + torch.arange(taps) * spread
        for count, taps, step, pad, spread in zip(out, kernel, stride, padding, dilation, strict=True)
    ]
    y, x = rows[0][:, None, :, None], rows[1][None, :, None, :]
    inside = (y >= 0) & (y < size[0]) & (x >= 0) & (x < size[1])
    reads = torch.where(inside, y * size[1] + x, -1).to(torch.int32)
    return Positions(out, reads.reshape(out[0] * out[1], -1).contiguous(), None)


@functools.lru_cache(maxsize=256)
def backward(size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Positions:
    """The table of the gradient of its input: a convolution that reads output pixels and writes input pixels."""
    reads = positions(size, kernel, stride, padding, dilation).reads
    if reads is None:
        return Positions(size, None, None)
    back = torch.full((size[0] * size[1], reads.shape[1]), -1, dtype=torch.int32)
    for tap, column in enumerate(reads.unbind(1)):  # at one tap no two output pixels read the same
        inside = column >= 0
        back[column[inside].long(), tap] = torch.nonzero(inside).squeeze(1).to(torch.int32)
    if stride == (1, 1):
        return Positions(size, back, None)
    # Pixels that the same taps reach lie together, so that a tile of them leaves the other taps out.
    numbers = torch.arange(size[0] * size[1]).view(size)
    corners = itertools.product(range(stride[0]), range(stride[1]))
    order = torch.cat([numbers[y :: stride[0], x :: stride[1]].flatten() for y, x in corners])
    return Positions(size, back[order].contiguous(), order.to(torch.int32))
