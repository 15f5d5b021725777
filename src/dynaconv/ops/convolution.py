"""Functions that the strategies share: torch's ordinary convolution, and the mixing of kernels and of biases."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from dynaconv.ops.geometry import Geometry

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def convolve(x: Tensor, kernel: Tensor, bias: Tensor | None, geometry: Geometry, groups: int | None = None) -> Tensor:
    """Convolve ``x`` with one kernel. The padding of ``geometry`` is numeric; ``groups`` overrides its ``groups``."""
    if geometry.dims == 0:
        return F.linear(x, kernel, bias)
    groups = geometry.groups if groups is None else groups
    if geometry.transposed:
        return _CONV_TRANSPOSE[geometry.dims](
            x, kernel, bias, geometry.stride, geometry.padding, geometry.output_padding, groups, geometry.dilation
        )
    return _CONV[geometry.dims](x, kernel, bias, geometry.stride, geometry.padding, geometry.dilation, groups)


def mix_kernels(bank: Tensor, routing: Tensor) -> Tensor:
    """``(K, *kernel), (B, K) -> (B, *kernel)``: every example's own kernel, as one matrix product."""
    return (routing.to(bank.dtype) @ bank.flatten(1)).unflatten(1, bank.shape[1:])


def mix_biases(bias: Tensor | None, routing: Tensor) -> Tensor | None:
    """``(K, out), (B, K) -> (B, out)``, by the same routing weights as the kernels."""
    return None if bias is None else routing.to(bias.dtype) @ bias


def add_bias(y: Tensor, biases: Tensor | None) -> Tensor:
    """Add one bias per example: ``(B, out, *space) + (B, out)``."""
    return y if biases is None else y + biases.to(y.dtype).reshape(*biases.shape, *(1,) * (y.dim() - 2))
