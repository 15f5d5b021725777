"""The interface to C: its structures and functions for ctypes, sizes, and the partition of the work."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

ACTIVATIONS = ("clamp", "silu", "hardswish")  # in the order of epilogue.h
KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}  # how the numbers of a bank are stored: kernels.h


class Activation(NamedTuple):
    """``clamp(y, low, high)``, or ``y * sigmoid(y)``, or ``y * clamp(y + 3, 0, 6) / 6``; see :data:`ACTIVATIONS`."""

    kind: str = "clamp"
    low: float = -math.inf
    high: float = math.inf

    @property
    def number(self) -> int:
        """Its number in epilogue.h."""
        return ACTIVATIONS.index(self.kind)


IDENTITY = Activation()
RELU = Activation(low=0.0)


_INT, _LONG, _FLOAT, _POINTER = ctypes.c_int, ctypes.c_int64, ctypes.c_float, ctypes.c_void_p
_Fields = list[tuple[str, Any]]


def _fields(kind: Any, names: str) -> _Fields:
    return [(name, kind) for name in names.split()]


class Convolution(ctypes.Structure):
    """``Convolution`` of kernels.h."""

    _fields_ = _fields(
        _LONG,
        "batch experts inputs outputs height width out_height out_width kernel_height kernel_width "
        "stride_y stride_x pad_y pad_x dilation_y dilation_x",
    )


class Bank(ctypes.Structure):
    """``Bank`` of kernels.h. Like the other structures it keeps no tensor alive."""

    _fields_ = [("kind", _LONG), *_fields(_POINTER, "numbers scale")]


class Epilogue(ctypes.Structure):
    """``Epilogue`` of epilogue.h: bias, activation and sums of an output."""

    _fields_ = [
        ("bias", _POINTER),
        *_fields(_LONG, "bias_step activation"),
        *_fields(_FLOAT, "low high"),
        ("sums", _POINTER),
    ]


class BankStrides(ctypes.Structure):
    """``BankStrides`` of kernels.h."""

    _fields_ = _fields(_LONG, "experts columns channels taps expert_step column_step channel_step")


class Layer(ctypes.Structure):
    """``Layer`` of kernels.h."""

    _fields_ = [
        ("depthwise", _LONG),
        ("convolution", Convolution),
        ("bank", Bank),
        *_fields(_POINTER, "bias biases"),
        ("activation", _LONG),
        *_fields(_FLOAT, "low high"),
        *_fields(_LONG, "hidden softmax"),
        *_fields(_POINTER, "hidden_weight hidden_bias fc_weight fc_bias"),
    ]


STRUCTURES = (Convolution, Bank, Epilogue, BankStrides, Layer)  # in the order of library.c

# Argument types of the functions of kernels.h. With them ctypes converts numbers and addresses several times faster.
_SIGNATURES: dict[str, list[Any]] = {
    "convolve": [_POINTER, _POINTER, _INT, _POINTER, _POINTER, _POINTER, _POINTER],
    "convolve_input_gradient": [_POINTER, _POINTER, _INT, _POINTER, _POINTER, _POINTER],
    "convolve_bank_gradient": [_POINTER, _INT, *[_POINTER] * 6],
    "experts": [_POINTER, _INT, *[_POINTER] * 5],
    "experts_input_gradient": [_POINTER, _INT, *[_POINTER] * 6],
    "experts_bank_gradient": [_POINTER, _INT, *[_POINTER] * 4],
    "depthwise": [_POINTER, _LONG, _INT, _POINTER, _POINTER, _POINTER, _POINTER],
    "depthwise_input_gradient": [_POINTER, _LONG, _INT, _POINTER, _POINTER, _POINTER],
    "depthwise_kernel_gradient": [_POINTER, _LONG, _INT, _POINTER, _POINTER, _POINTER],
    "pack": [_POINTER, _INT, _POINTER, _POINTER],
    "unpack": [_POINTER, _INT, _POINTER, _POINTER],
    "transpose": [_LONG, _LONG, _LONG, _INT, _POINTER, _POINTER],
    "channel_sums": [_LONG, _LONG, _LONG, _LONG, _INT, _POINTER, _POINTER],
    "route": [_LONG, _LONG, _LONG, _LONG, _INT, _FLOAT, *[_POINTER] * 6],
    "mix": [_INT, _LONG, _LONG, _LONG, _LONG, _INT, _INT, *[_POINTER] * 4],
    "frozen_layer": [_POINTER, _LONG, _LONG, _INT, _INT, *[_POINTER] * 5],
}


def declare(library: ctypes.CDLL) -> ctypes.CDLL:
    """Set the argument types of every function; a function that cannot allocate its workspace raises MemoryError.

    Raises:
        AttributeError: a function is missing, so this is another library.
        RuntimeError: a structure has another size in C: the library was built from other sources.
    """
    library.dynaconv_struct_size.argtypes, library.dynaconv_struct_size.restype = [_INT], _LONG
    library.dynaconv_instruction_set.restype = ctypes.c_char_p
    for index, structure in enumerate(STRUCTURES):
        size = library.dynaconv_struct_size(index)
        if size != ctypes.sizeof(structure):
            raise RuntimeError(f"{structure.__name__} has {size} bytes in C and {ctypes.sizeof(structure)} in Python")
    for name, arguments in _SIGNATURES.items():
        function = getattr(library, f"dynaconv_{name}")
        function.argtypes, function.restype, function.errcheck = arguments, _INT, _check_status
    return library


def _check_status(status: int, function: Any, arguments: tuple[Any, ...]) -> None:
    if status:
        raise MemoryError(f"{function.__name__} found no memory for its workspace")


def partition(batch: int, channels: int) -> tuple[int, int]:
    """``(slabs, threads)``: the ranges of channels into which every example is split, so that all threads have work."""
    threads = torch.get_num_threads()
    slabs = 1 if batch >= threads else min(-(-threads // batch), -(-channels // 64))
    return slabs, threads


def output_size(
    size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> tuple[int, int]:
    """Height and width of a convolution's output for an input of ``size``; ValueError if the kernel does not fit."""
    height, width = (
        (extent + 2 * pad - spread * (taps - 1) - 1) // step + 1
        for extent, taps, step, pad, spread in zip(size, kernel, stride, padding, dilation, strict=True)
    )
    if min(height, width) < 1:
        raise ValueError(f"the kernel {tuple(kernel)} does not fit into the padded input of {tuple(size)}")
    return height, width
