"""Strides and convolution parameters as arguments of a kernel. Does not import triton."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Move(NamedTuple):
    """Stride, padding and dilation of a two-dimensional convolution, (height, width) each."""

    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]

    def arguments(self) -> dict[str, int]:
        """``stride_h``, ``stride_w``, ``padding_h`` ... as the kernels name them."""
        return {
            f"{name}_{axis}": pair[index] for name, pair in self._asdict().items() for index, axis in enumerate("hw")
        }


def strides(name: str, tensor: Tensor, axes: str) -> dict[str, int]:
    """The strides of a tensor in elements, as arguments ``x_b``, ``x_c`` ... of a kernel."""
    return {f"{name}_{axis}": stride for axis, stride in zip(axes, tensor.stride(), strict=True)}


def addressable(x: Tensor) -> Tensor:
    """``x``, or a contiguous copy if an offset within one example does not fit into the 32 bits that kernels use."""
    reach = sum((size - 1) * stride for size, stride in zip(x.shape[1:], x.stride()[1:], strict=True))
    return x if reach < 2**31 else x.contiguous()


def channels_last(x: Tensor) -> bool:
    """Whether the channels are the contiguous dimension, and ``x`` is not also contiguous in the default format."""
    return x.stride(1) == 1 and not x.is_contiguous()


def workspace(like: Tensor, *shape: int, needed: bool) -> Tensor:
    """A float32 workspace on the device of ``like``; an empty tensor if it is not needed."""
    return torch.empty(shape if needed else (0,), dtype=torch.float32, device=like.device)
