"""How a kernel's arguments describe tensors and the convolution's movement. Nothing here imports triton."""

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
    """``x_b``, ``x_c`` ...: how far apart neighbours along each axis lie in memory, in elements."""
    return {f"{name}_{axis}": stride for axis, stride in zip(axes, tensor.stride(), strict=True)}


def addressable(x: Tensor) -> Tensor:
    """``x``, copied if two numbers of one example lie too far apart for the 32-bit offsets of the kernels."""
    reach = sum((size - 1) * stride for size, stride in zip(x.shape[1:], x.stride()[1:], strict=True))
    return x if reach < 2**31 else x.contiguous()


def channels_last(x: Tensor) -> bool:
    """Whether the channels of one position lie together, and a whole map does not."""
    return x.stride(1) == 1 and not x.is_contiguous()


def room(like: Tensor, *shape: int, needed: bool) -> Tensor:
    """Room for sums in float32 on the device of ``like``, or nothing."""
    return torch.empty(shape if needed else (0,), dtype=torch.float32, device=like.device)
