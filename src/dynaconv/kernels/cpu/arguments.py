"""How tensors and sizes are handed to C."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dynaconv.kernels.cpu.activation import Activation

_SIZES = (
    *("batch", "channels", "height", "width", "out_height", "out_width", "kernel_height", "kernel_width"),
    *("stride_y", "stride_x", "pad_y", "pad_x", "dilation_y", "dilation_x"),
)


class Geometry(ctypes.Structure):
    """``Geometry`` of kernels.h."""

    _fields_ = [(name, ctypes.c_int64) for name in _SIZES]


class Convolution(ctypes.Structure):
    """``Convolution`` of kernels.h."""

    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in ("batch", "experts", "inputs", "outputs", "taps", "pixels_in", "pixels_out")
        ),
        ("reads", ctypes.c_void_p),
        ("writes", ctypes.c_void_p),
    ]


class Bank(ctypes.Structure):
    """``Bank`` of kernels.h."""

    _fields_ = [("kind", ctypes.c_int64), ("numbers", ctypes.c_void_p), ("scale", ctypes.c_void_p)]


class Lie(ctypes.Structure):
    """``Lie`` of panels.c."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in ("experts", "columns", "channels", "taps", "expert_step", "column_step", "channel_step")
    ]


class Layer(ctypes.Structure):
    """``Layer`` of layer.c. It keeps no tensor alive."""

    _fields_ = [
        ("depthwise", ctypes.c_int64),
        ("dense", Convolution),
        ("geometry", Geometry),
        ("bank", Bank),
        ("bias", ctypes.c_void_p),
        ("biases", ctypes.c_void_p),
        ("curve", ctypes.c_int64),
        ("low", ctypes.c_float),
        ("high", ctypes.c_float),
        *((name, ctypes.c_int64) for name in ("channels", "pixels", "hidden", "softmax")),
        *((name, ctypes.c_void_p) for name in ("hidden_weight", "hidden_bias", "fc_weight", "fc_bias")),
    ]


class Follow(ctypes.Structure):
    """``Follow`` of common.h: what is done to a map once it is computed. It keeps no tensor alive."""

    _fields_ = [
        ("bias", ctypes.c_void_p),
        ("bias_step", ctypes.c_int64),
        ("curve", ctypes.c_int64),
        ("low", ctypes.c_float),
        ("high", ctypes.c_float),
        ("sums", ctypes.c_void_p),
    ]


KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}  # how the numbers of a bank are stored: kernels.h


def at(tensor: Tensor | None) -> int | None:
    """The address of a dense tensor's first number, or NULL."""
    return None if tensor is None else tensor.data_ptr()


def work(batch: int, channels: int) -> tuple[int, int]:
    """Into how many ranges of channels every example is cut, so that all threads have work; and the threads."""
    threads = torch.get_num_threads()
    slabs = 1 if batch >= threads else min(-(-threads // batch), -(-channels // 64))
    return slabs, threads


def follow(bias: Tensor | None, activation: Activation, sums: Tensor | None) -> Any:
    """``activation(y + bias)``, added up in ``sums``; ``bias`` and ``sums`` are dense, ``(B, C)``, or None.

    A bias for all examples is ``(C,)``.
    """
    step = bias.shape[1] if bias is not None and bias.dim() == 2 else 0
    return ctypes.byref(Follow(at(bias), step, activation.number, activation.low, activation.high, at(sums)))


def channels_last(shape: Sequence[int]) -> Tensor:
    """An empty map ``(B, C, H, W)`` in that layout."""
    batch, channels, height, width = shape
    return torch.empty(batch, height, width, channels, dtype=torch.float32).permute(0, 3, 1, 2)
