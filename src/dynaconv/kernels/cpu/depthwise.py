"""Depthwise convolution of every example with its own kernel, in channels_last, and its gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dynaconv.kernels.cpu import border
from dynaconv.kernels.cpu.arguments import IDENTITY, Activation, partition
from dynaconv.kernels.cpu.border import CHANNELS_LAST, data_ptr
from dynaconv.kernels.cpu.build import library

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
    activation: Activation = IDENTITY,
    sums: Tensor | None = None,
) -> Tensor:
    """``y[b, c] = activation(conv(x[b, c], taps[b, :, c]) + bias[b, c])``.

    Args:
        x: ``(B, C, H, W)`` float32 on the CPU, contiguous as channels_last.
        taps: ``(B, kh * kw, C)`` float32, dense; see :func:`taps_of`.
        kernel: ``(kh, kw)``.
        bias: ``(B, C)`` float32, or ``(C,)`` for all examples, or None; dense.
        stride, padding, dilation: two numbers each.
        activation: applied to the output.
        sums: ``(B, C)`` float32, zeros: the output's sums over space are added to it.

    Returns:
        ``(B, C, H', W')`` in channels_last.

    Raises:
        TypeError, ValueError: another dtype, shape or layout than these.
    """
    shape = batch, channels, *_ = border.map_shape("x", x)
    sizes = border.sizes(shape, 1, channels, kernel, stride, padding, dilation)
    weights = data_ptr("taps", taps, (batch, kernel[0] * kernel[1], channels))
    nothing = bias is None and sums is None and activation == IDENTITY
    after = None if nothing else border.epilogue(bias, activation, sums, batch, channels)
    read = data_ptr("x", x, shape, layout=CHANNELS_LAST)
    y = border.new_map(batch, channels, *sizes.output)
    if batch:
        slabs, threads = partition(batch, channels)
        library().dynaconv_depthwise(sizes.reference, slabs, threads, after, read, weights, y.data_ptr())
    return y


def input_gradient(
    gradient: Tensor, shape: Sequence[int], taps: Tensor, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> Tensor:
    """Gradient with respect to the input of shape ``shape``, in channels_last, from the upstream ``gradient``, in any
    layout."""
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    batch, channels, height, width = shape
    sizes = border.sizes(shape, 1, channels, kernel, stride, padding, dilation)
    upstream = _upstream(gradient, batch, channels, *sizes.output)
    if all(step == 1 for step in stride):  # a convolution with the taps in reverse order; it writes every number once
        around = [spread * (size - 1) - pad for size, pad, spread in zip(kernel, padding, dilation, strict=True)]
        return depthwise(gradient, taps.flip(1), kernel, None, stride, around, dilation)
    weights = data_ptr("taps", taps, (batch, kernel[0] * kernel[1], channels))
    x = border.new_map(batch, channels, height, width)
    if batch:
        slabs, threads = partition(batch, channels)
        library().dynaconv_depthwise_input_gradient(sizes.reference, slabs, threads, x.data_ptr(), weights, upstream)
    return x


def kernel_gradient(gradient: Tensor, x: Tensor, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Tensor:
    """Gradient of the taps, ``(B, kh * kw, C)``."""
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    shape = batch, channels, *_ = border.map_shape("x", x)
    sizes = border.sizes(shape, 1, channels, kernel, stride, padding, dilation)
    upstream = _upstream(gradient, batch, channels, *sizes.output)
    read = data_ptr("x", x, shape, layout=CHANNELS_LAST)
    taps = torch.empty(batch, kernel[0] * kernel[1], channels, dtype=torch.float32, device="cpu")
    if batch:
        slabs, threads = partition(batch, channels)
        library().dynaconv_depthwise_kernel_gradient(sizes.reference, slabs, threads, read, taps.data_ptr(), upstream)
    return taps


def taps_of(kernels: Tensor) -> Tensor:
    """``(B, C, 1, kh, kw) -> (B, kh * kw, C)``: the channels are the contiguous dimension, as in channels_last maps."""
    return kernels.flatten(2).transpose(1, 2).contiguous()


def _upstream(gradient: Tensor, batch: int, channels: int, height: int, width: int) -> int:
    return data_ptr("gradient", gradient, (batch, channels, height, width), layout=CHANNELS_LAST)
