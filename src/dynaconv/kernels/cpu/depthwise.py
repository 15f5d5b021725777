"""Depthwise convolution of every example with its own kernel, in channels_last, and its gradients."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from dynaconv.kernels.cpu.activation import NOTHING, Activation
from dynaconv.kernels.cpu.arguments import Geometry, at, channels_last, follow, work
from dynaconv.kernels.cpu.build import library
from dynaconv.kernels.cpu.positions import output_size

Pair = Sequence[int]


def depthwise(
    x: Tensor,
    taps: Tensor,
    kernel: Pair,
    bias: Tensor | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    *,
    activation: Activation = NOTHING,
    sums: Tensor | None = None,
) -> Tensor:
    """``y[b, c] = activation(conv(x[b, c], taps[b, :, c]) + bias[b, c])``.

    Args:
        x: ``(B, C, H, W)`` float32 on the CPU, contiguous as channels_last.
        taps: ``(B, kh * kw, C)`` float32, dense; see :func:`taps_of`.
        kernel: ``(kh, kw)``.
        bias: ``(B, C)`` float32, or ``(C,)`` for all examples, or None; dense.
        stride, padding, dilation: two numbers each.
        activation: what is done to the output.
        sums: ``(B, C)`` float32, zeros: the output's sums over space are added to it.

    Returns:
        ``(B, C, H', W')`` in channels_last.
    """
    geometry = _geometry(x.shape, kernel, stride, padding, dilation)
    y = channels_last((geometry.batch, geometry.channels, geometry.out_height, geometry.out_width))
    nothing = bias is None and sums is None and activation == NOTHING
    after = None if nothing else follow(bias, activation, sums)
    slabs, threads = work(geometry.batch, geometry.channels)
    library().depthwise(ctypes.byref(geometry), slabs, threads, after, at(x), at(taps), at(y))
    return y


def input_gradient(
    gradient: Tensor, shape: Sequence[int], taps: Tensor, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> Tensor:
    """Gradient of the input, of ``shape``, in channels_last; ``gradient`` is the output's, in any layout."""
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    if all(step == 1 for step in stride):  # a convolution with the taps in reverse, which writes every number once
        around = [spread * (size - 1) - pad for size, pad, spread in zip(kernel, padding, dilation, strict=True)]
        return depthwise(gradient, taps.flip(1), kernel, None, stride, around, dilation)
    geometry = _geometry(shape, kernel, stride, padding, dilation)
    x = channels_last(shape)
    slabs, threads = work(geometry.batch, geometry.channels)
    library().depthwise_input_gradient(ctypes.byref(geometry), slabs, threads, at(x), at(taps), at(gradient))
    return x


def kernel_gradient(gradient: Tensor, x: Tensor, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Tensor:
    """Gradient of the taps, ``(B, kh * kw, C)``."""
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    geometry = _geometry(x.shape, kernel, stride, padding, dilation)
    taps = torch.empty(x.shape[0], kernel[0] * kernel[1], x.shape[1], dtype=torch.float32)
    slabs, threads = work(geometry.batch, geometry.channels)
    library().depthwise_kernel_gradient(ctypes.byref(geometry), slabs, threads, at(x), at(taps), at(gradient))
    return taps


def _geometry(shape: Sequence[int], kernel: Sequence[int], stride: Pair, padding: Pair, dilation: Pair) -> Geometry:
    out = output_size(shape[2:], kernel, stride, padding, dilation)
    return Geometry(*shape, *out, *kernel, *stride, *padding, *dilation)


def taps_of(kernels: Tensor) -> Tensor:
    """``(B, C, 1, kh, kw) -> (B, kh * kw, C)``: the channels of a tap lie side by side, as those of a pixel do."""
    return kernels.flatten(2).transpose(1, 2).contiguous()
