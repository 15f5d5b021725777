"""Dense convolution of every example with its own mixed kernel, in channels_last, and its gradients.

A bank is packed into panels, in the order in which the kernel reads it: ``(K, ceil(out / 32), taps * in, 32)``. The
last panel is padded with zeros.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dynaconv.kernels.cpu import border
from dynaconv.kernels.cpu.arguments import IDENTITY, Activation, BankStrides
from dynaconv.kernels.cpu.border import CHANNELS_LAST, PANEL, data_ptr
from dynaconv.kernels.cpu.build import library

Pair = Sequence[int]


def convolve(
    x: Tensor,
    packed: Tensor,
    routing: Tensor,
    bias: Tensor | None,
    outputs: int,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    *,
    scale: Tensor | None = None,
    activation: Activation = IDENTITY,
    sums: Tensor | None = None,
) -> Tensor:
    """``y[b] = activation(conv(x[b], sum_k routing[b, k] * bank[k]) + bias[b])``.

    Args:
        x: ``(B, C, H, W)`` float32 on the CPU, contiguous as channels_last.
        packed: the bank, float32, bfloat16 or int8; see :func:`pack_bank`.
        routing: ``(B, K)`` float32.
        bias: ``(B, outputs)`` float32, or ``(outputs,)`` for all examples, or None; dense.
        outputs: output channels.
        kernel, stride, padding, dilation: two numbers each.
        scale: ``(K, ceil(outputs / 32), 1, 32)`` of an int8 bank.
        activation: applied to the output.
        sums: ``(B, outputs)`` float32, zeros: the output's sums over space are added to it.

    Returns:
        ``(B, outputs, H', W')`` in channels_last.

    Raises:
        TypeError, ValueError: another dtype, shape or layout than these.
        MemoryError: the kernel's workspace cannot be allocated.
    """
    shape = border.map_shape("x", x)
    experts = packed.shape[0]
    sizes = border.sizes(shape, experts, outputs, kernel, stride, padding, dilation)
    panels = border.packed_shape(experts, shape[1], outputs, kernel[0] * kernel[1])
    bank = border.bank(packed, scale, panels, (*panels[:2], 1, PANEL))
    routing = routing.contiguous()
    weights = data_ptr("routing", routing, (shape[0], experts))
    after = border.epilogue(bias, activation, sums, shape[0], outputs)
    read = data_ptr("x", x, shape, layout=CHANNELS_LAST)
    y = border.new_map(shape[0], outputs, *sizes.output)
    if shape[0]:
        library().dynaconv_convolve(
            sizes.reference, ctypes.byref(bank), torch.get_num_threads(), weights, after, read, y.data_ptr()
        )
    return y


def input_gradient(
    gradient: Tensor,
    shape: Sequence[int],
    packed: Tensor,
    routing: Tensor,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> Tensor:
    """Gradient with respect to the input of shape ``shape``, in channels_last.

    ``gradient`` is the upstream gradient ``(B, outputs, H', W')`` in channels_last; ``packed`` is ``pack_bank(bank,
    transposed=True)``.
    """
    _, outputs, *_ = border.map_shape("gradient", gradient)
    batch, inputs, height, width = shape
    experts = packed.shape[0]
    sizes = border.sizes(shape, experts, outputs, kernel, stride, padding, dilation)
    bank = border.bank(packed, None, border.packed_shape(experts, outputs, inputs, kernel[0] * kernel[1]), ())
    upstream = _upstream(gradient, batch, outputs, *sizes.output)
    routing = routing.contiguous()
    weights = data_ptr("routing", routing, (batch, experts))
    x = border.new_map(batch, inputs, height, width)
    if batch:
        threads = torch.get_num_threads()
        library().dynaconv_convolve_input_gradient(
            sizes.reference, ctypes.byref(bank), threads, weights, upstream, x.data_ptr()
        )
    return x


def bank_gradient(
    gradient: Tensor,
    x: Tensor,
    packed: Tensor,
    routing: Tensor,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> tuple[Tensor, Tensor]:
    """Gradients of the bank (packed) and of the routing weights, from the upstream ``gradient`` in channels_last."""
    shape, outputs = border.map_shape("x", x), border.map_shape("gradient", gradient)[1]
    experts = packed.shape[0]
    sizes = border.sizes(shape, experts, outputs, kernel, stride, padding, dilation)
    bank = data_ptr("the bank", packed, border.packed_shape(experts, shape[1], outputs, kernel[0] * kernel[1]))
    routing = routing.contiguous()
    weights = data_ptr("routing", routing, (shape[0], experts))
    upstream = _upstream(gradient, shape[0], outputs, *sizes.output)
    read = data_ptr("x", x, shape, layout=CHANNELS_LAST)
    if not shape[0]:
        return torch.zeros_like(packed), torch.empty_like(routing)
    of_bank, of_routing = torch.empty_like(packed), torch.empty_like(routing)
    library().dynaconv_convolve_bank_gradient(
        sizes.reference,
        torch.get_num_threads(),
        bank,
        weights,
        read,
        upstream,
        of_bank.data_ptr(),
        of_routing.data_ptr(),
    )
    return of_bank, of_routing


def pack_bank(bank: Tensor, transposed: bool = False) -> Tensor:
    """Pack a bank ``(K, out, in, *taps)``, float32, into panels; ``transposed`` exchanges input and output channels."""
    bank = bank.contiguous()
    strides = _strides(bank.shape, transposed)
    packed = torch.empty(
        border.packed_shape(strides.experts, strides.channels, strides.columns, strides.taps),
        dtype=torch.float32,
        device="cpu",
    )
    start = data_ptr("the bank", bank, bank.shape)
    library().dynaconv_pack(ctypes.byref(strides), torch.get_num_threads(), start, packed.data_ptr())
    return packed


def unpack_bank(packed: Tensor, shape: Sequence[int]) -> Tensor:
    """The inverse of :func:`pack_bank`: panels to a bank of shape ``shape``, ``(K, out, in, *taps)``."""
    strides = _strides(shape, transposed=False)
    start = data_ptr(
        "the packed bank",
        packed,
        border.packed_shape(strides.experts, strides.channels, strides.columns, strides.taps),
    )
    bank = torch.empty(tuple(shape), dtype=torch.float32, device="cpu")
    library().dynaconv_unpack(ctypes.byref(strides), torch.get_num_threads(), bank.data_ptr(), start)
    return bank


def in_channels_last(x: Tensor) -> Tensor:
    """A float32 map ``(B, C, H, W)`` in channels_last: the map itself, or a copy of it."""
    if x.is_contiguous(memory_format=CHANNELS_LAST) or not x.is_contiguous() or not x.numel():
        return x.contiguous(memory_format=CHANNELS_LAST)
    batch, channels, height, width = border.map_shape("x", x)
    y = border.new_map(batch, channels, height, width)
    start, threads = data_ptr("x", x, x.shape), torch.get_num_threads()
    library().dynaconv_transpose(batch, channels, height * width, threads, start, y.data_ptr())
    return y


def in_contiguous(x: Tensor) -> Tensor:
    """The inverse of :func:`in_channels_last`: a contiguous copy of a float32 map in channels_last."""
    if x.is_contiguous() or not x.numel():
        return x.contiguous()
    batch, channels, height, width = border.map_shape("x", x)
    y = torch.empty(batch, channels, height, width, dtype=torch.float32, device="cpu")
    start, threads = data_ptr("x", x, x.shape, layout=CHANNELS_LAST), torch.get_num_threads()
    library().dynaconv_transpose(batch, height * width, channels, threads, start, y.data_ptr())
    return y


def _upstream(gradient: Tensor, batch: int, outputs: int, height: int, width: int) -> int:
    return data_ptr("gradient", gradient, (batch, outputs, height, width), layout=CHANNELS_LAST)


def _strides(shape: Sequence[int], transposed: bool) -> BankStrides:
    if len(shape) < 3 or min(shape) < 1:
        raise ValueError(f"the bank is {tuple(shape)}; expected (experts, out, in, *taps), at least 1 of each")
    experts, out, inputs, *space = shape
    taps = math.prod(space)
    sides = (out, inputs * taps), (inputs, taps)
    (columns, column_step), (channels, channel_step) = reversed(sides) if transposed else sides
    return BankStrides(experts, columns, channels, taps, out * inputs * taps, column_step, channel_step)
