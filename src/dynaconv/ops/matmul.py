"""Strategy ``matmul``: a 1x1 convolution, or a linear layer, is one batched matrix product."""

from __future__ import annotations

import torch
from torch import Tensor

from dynaconv.ops.call import Call
from dynaconv.ops.geometry import Geometry, pad
from dynaconv.ops.ordinary import add_bias, mixed_biases, mixed_kernels


def refuses(call: Call) -> str | None:
    geometry = call.geometry
    if not call.pointwise:
        return f"the kernel is {'x'.join(map(str, call.kernel))}; this form is for 1x1 and linear"
    if geometry.transposed and (
        any(stride > 1 for stride in geometry.stride) or any(geometry.padding) or any(geometry.output_padding)
    ):
        return "a transposed convolution with stride or padding does not keep its positions"
    return None


def run(x: Tensor, bank: Tensor, routing: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """``y[b] = W[b] @ x[b]`` over positions; channels_last input is read, and answered, in its own layout."""
    kernels, biases = mixed_kernels(bank, routing), mixed_biases(bias, routing)
    if geometry.dims == 0:
        return _linear(x, kernels, biases)
    x = _visited(x, geometry)
    batch, groups = x.shape[0], geometry.groups
    weights = _per_group(kernels.flatten(2), groups, geometry.transposed)
    if groups == 1 and x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        tokens = x.permute(0, 2, 3, 1).reshape(batch, -1, x.shape[1])
        y = tokens @ weights[:, 0].transpose(1, 2)
        y = y.reshape(batch, *x.shape[2:], -1).permute(0, 3, 1, 2)
    else:
        y = (weights @ x.reshape(batch, groups, x.shape[1] // groups, -1)).reshape(batch, -1, *x.shape[2:])
    return add_bias(y, biases)


def _linear(x: Tensor, kernels: Tensor, biases: Tensor | None) -> Tensor:
    y = x.reshape(x.shape[0], -1, x.shape[-1]) @ kernels.transpose(1, 2)
    if biases is not None:
        y = y + biases.to(y.dtype).unsqueeze(1)
    return y.reshape(*x.shape[:-1], -1)


def _visited(x: Tensor, geometry: Geometry) -> Tensor:
    """The positions that the kernel visits: padded, then every ``stride``-th."""
    x = pad(x, [(amount, amount) for amount in geometry.padding])
    for axis, stride in enumerate(geometry.stride):
        if stride > 1:
            x = x[(slice(None),) * (2 + axis) + (slice(None, None, stride),)]
    return x


def _per_group(kernels: Tensor, groups: int, transposed: bool) -> Tensor:
    """``(B, out, in/groups)``, or transposed ``(B, in, out/groups)``, to ``(B, groups, out/groups, in/groups)``."""
    per_group = kernels.reshape(kernels.shape[0], groups, -1, kernels.shape[2])
    return per_group.transpose(2, 3) if transposed else per_group
