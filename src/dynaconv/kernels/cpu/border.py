"""The border between Python and C: checks every tensor that C reads or writes, and every size that C uses.

The C code checks nothing. With a wrong dtype, layout or shape it would read wrong numbers or out of bounds.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dynaconv.kernels.cpu.arguments import KINDS, Activation, Bank, Convolution, Epilogue, output_size

PANEL = 32  # output channels of a panel of a packed bank: convolve.h
_MOST = 2**31 - 1  # C counts pixels in 32 bits

CHANNELS_LAST = torch.channels_last


def data_ptr(
    name: str,
    tensor: Tensor,
    shape: Sequence[int],
    dtype: torch.dtype = torch.float32,
    layout: torch.memory_format = torch.contiguous_format,
) -> int:
    """The address of a tensor's first number, after a check of the tensor.

    Args:
        name: the tensor's name in error messages.
        tensor: must be a dense tensor on the CPU, of this ``shape``, ``dtype`` and ``layout``.

    Raises:
        TypeError: another dtype, or no tensor.
        ValueError: another device, shape or layout. Both messages name what came and what was expected.
    """
    try:
        if (
            tensor.dtype is dtype
            and tensor.shape == shape
            and tensor.is_cpu
            and tensor.layout is torch.strided
            and tensor.is_contiguous(memory_format=layout)
            and not tensor.is_neg()  # a lazy negation: the numbers in memory have the opposite sign
        ):
            return tensor.data_ptr()
    except AttributeError:
        pass
    raise _refusal(name, tensor, tuple(shape), dtype, layout)


def optional(name: str, tensor: Tensor | None, shape: Sequence[int]) -> int | None:
    """As :func:`data_ptr`; NULL for None."""
    return None if tensor is None else data_ptr(name, tensor, shape)


def map_shape(name: str, x: Tensor) -> torch.Size:
    """``(B, C, H, W)`` of a map; ValueError where it has other dimensions."""
    if not isinstance(x, Tensor) or x.dim() != 4:
        came = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"{name} is {came}; expected (batch, channels, height, width)")
    return x.shape


class Sizes(NamedTuple):
    """The sizes of a convolution, checked."""

    convolution: Convolution
    reference: Any  # ctypes.byref(convolution)
    output: tuple[int, int]  # height and width


def sizes(
    shape: Sequence[int],
    experts: int,
    outputs: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Sizes:
    """The sizes of a convolution over a map of ``shape``; ValueError if they do not fit together."""
    return _sizes(tuple(shape), experts, outputs, tuple(kernel), tuple(stride), tuple(padding), tuple(dilation))


@functools.lru_cache(maxsize=512)  # a cached call takes one microsecond instead of ten
def _sizes(
    shape: tuple[int, ...],
    experts: int,
    outputs: int,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
) -> Sizes:
    if len(shape) != 4 or min(shape[1:]) < 1 or shape[0] < 0:
        raise ValueError(
            f"the input is {shape}; expected (batch, channels, height, width), all but the batch at least 1"
        )
    for name, pair in (("kernel", kernel), ("stride", stride), ("dilation", dilation)):
        if len(pair) != 2 or min(pair) < 1:
            raise ValueError(f"{name} is {pair}; expected two numbers of at least 1")
    if len(padding) != 2:  # may be negative (cropping): the gradient of the input uses that
        raise ValueError(f"padding is {padding}; expected two numbers")
    if experts < 1 or outputs < 1:
        raise ValueError(f"there are {experts} experts and {outputs} output channels; expected at least 1 of each")
    batch, inputs, *size = shape
    out = output_size(size, kernel, stride, padding, dilation)
    if size[0] * size[1] > _MOST or out[0] * out[1] > _MOST:
        raise ValueError(f"maps of {size[0]} x {size[1]} and {out[0]} x {out[1]} pixels; expected at most {_MOST}")
    made = Convolution(batch, experts, inputs, outputs, *size, *out, *kernel, *stride, *padding, *dilation)
    return Sizes(made, ctypes.byref(made), out)


def packed_shape(experts: int, inputs: int, outputs: int, taps: int) -> tuple[int, int, int, int]:
    """The shape of a packed bank: ``(K, ceil(outputs / 32), taps * inputs, 32)``."""
    return experts, -(-outputs // PANEL), taps * inputs, PANEL


def bank(numbers: Tensor, scale: Tensor | None, shape: Sequence[int], scale_shape: Sequence[int]) -> Bank:
    """A bank of ``shape`` in float32, bfloat16 or int8. Only int8 has a ``scale``."""
    kind = KINDS.get(numbers.dtype)
    if kind is None:
        raise TypeError(f"the bank is {numbers.dtype}; expected one of {', '.join(map(str, KINDS))}")
    if (scale is not None) != (numbers.dtype is torch.int8):
        raise ValueError(
            f"the bank is {numbers.dtype} {'without' if scale is None else 'with'} a scale; int8 alone has one"
        )
    return Bank(kind, data_ptr("the bank", numbers, shape, numbers.dtype), optional("scale", scale, scale_shape))


def epilogue(bias: Tensor | None, activation: Activation, sums: Tensor | None, batch: int, channels: int) -> Any:
    """A reference to the epilogue: ``y = activation(y + bias)``, and ``sums`` += the sums of ``y`` over space.

    ``bias`` is ``(B, C)``, or ``(C,)`` for all examples, or None; ``sums`` is ``(B, C)`` or None.
    """
    each = bias is not None and bias.dim() == 2
    return ctypes.byref(
        Epilogue(
            optional("bias", bias, (batch, channels) if each else (channels,)),
            channels if each else 0,
            activation.number,
            activation.low,
            activation.high,
            optional("sums", sums, (batch, channels)),
        )
    )


def new_map(batch: int, channels: int, height: int, width: int) -> Tensor:
    """An empty float32 map ``(B, C, H, W)`` in channels_last; no view, or what follows could not work in place."""
    shape = (batch, channels, height, width)
    return torch.empty(shape, dtype=torch.float32, device="cpu", memory_format=torch.channels_last)


def _refusal(
    name: str, tensor: Any, shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format
) -> TypeError | ValueError:
    """The error for a tensor that :func:`data_ptr` does not accept: what came, and what was expected."""
    if not isinstance(tensor, Tensor):
        return TypeError(f"{name} is {type(tensor).__name__}; expected a tensor of {dtype}")
    if tensor.dtype is not dtype:
        return TypeError(f"{name} is {tensor.dtype}; expected {dtype}")
    if tuple(tensor.shape) != shape:
        return ValueError(f"{name} has the shape {tuple(tensor.shape)}; expected {shape}")
    if not tensor.is_cpu or tensor.layout is not torch.strided:
        return ValueError(f"{name} is a {tensor.layout} tensor on {tensor.device}; expected a dense one on cpu")
    if tensor.is_neg():
        return ValueError(f"{name} is a lazily negated view; expected numbers in memory: call resolve_neg()")
    last = layout is CHANNELS_LAST
    wanted, how = ("channels_last", "memory_format=torch.channels_last") if last else ("contiguous", "")
    return ValueError(
        f"{name} of shape {shape} has the strides {tensor.stride()}; expected {wanted}: call contiguous({how})"
    )
