"""Strategy ``matmul``: a 1x1 convolution, or a linear layer, is one batched matrix product."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dynaconv.ops.call import Call, is_channels_last
from dynaconv.ops.convolution import add_bias
from dynaconv.ops.geometry import Geometry, pad
from dynaconv.ops.strategies.strategy import Strategy
from dynaconv.torch_private import is_exporting


def refuses(call: Call) -> str | None:
    if not call.pointwise:
        return f"the kernel is {'x'.join(map(str, call.kernel))}; this form is for 1x1 and linear"
    if not fits(call.geometry, call.kernel):
        return "a transposed convolution with stride or padding does not keep its positions"
    return None


def fits(geometry: Geometry, taps: Sequence[int]) -> bool:
    """Whether a convolution with a kernel of this size is one matrix product at every position."""
    return all(size == 1 for size in taps) and (not geometry.transposed or keeps_positions(geometry))


def keeps_positions(geometry: Geometry) -> bool:
    """Whether input and output have the same positions."""
    return not (any(stride > 1 for stride in geometry.stride) or any(geometry.padding) or any(geometry.output_padding))


def convolve_each(x: Tensor, kernels: Tensor, biases: Tensor | None, geometry: Geometry) -> Tensor:
    """``y[b] = kernels[b] @ x[b]`` over positions; channels_last input is read, and returned, in its own layout."""
    if geometry.dims == 0:
        return _linear(x, kernels, biases)
    x = _visited(x, geometry)
    batch, groups = x.shape[0], geometry.groups
    weights = _per_group(kernels.flatten(2), groups, geometry.transposed)
    if groups == 1 and is_channels_last(x):
        y = _product(_tokens(x), weights[:, 0].transpose(1, 2), biases)
        return y.reshape(batch, *x.shape[2:], -1).permute(0, 3, 1, 2)
    y = (weights @ x.reshape(batch, groups, x.shape[1] // groups, -1)).reshape(batch, -1, *x.shape[2:])
    return add_bias(y, biases)


def _product(rows: Tensor, columns: Tensor, biases: Tensor | None) -> Tensor:
    """``(B, L, in), (B, in, out), (B, out) -> (B, L, out)``; one example is an ordinary product, which costs less."""
    biases = None if biases is None else _like(biases, rows)
    if rows.shape[0] == 1 and not is_exporting():
        one = rows[0] @ columns[0] if biases is None else torch.addmm(biases[0], rows[0], columns[0])
        return one.unsqueeze(0)
    return rows @ columns if biases is None else torch.baddbmm(biases.unsqueeze(1), rows, columns)


def gradients(
    gradient: Tensor, x: Tensor, kernels: Tensor, geometry: Geometry, need_x: bool, need_kernels: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of the input and of the kernels of :func:`convolve_each`, where :func:`keeps_positions` holds."""
    batch, groups = x.shape[0], geometry.groups
    weights = _per_group(kernels.flatten(2), groups, geometry.transposed)
    if groups == 1 and is_channels_last(x):
        inputs, upstream = _tokens(x), _tokens(gradient)
        of_x = (upstream @ weights[:, 0]).reshape(batch, *x.shape[2:], -1).permute(0, 3, 1, 2) if need_x else None
        of_weights = (upstream.transpose(1, 2) @ inputs).unsqueeze(1) if need_kernels else None
    else:
        inputs = x.reshape(batch, groups, x.shape[1] // groups, -1)
        upstream = gradient.reshape(batch, groups, gradient.shape[1] // groups, -1)
        of_x = (weights.transpose(2, 3) @ upstream).reshape(x.shape) if need_x else None
        of_weights = upstream @ inputs.transpose(2, 3) if need_kernels else None
    if of_weights is not None and geometry.transposed:
        of_weights = of_weights.transpose(2, 3)
    return of_x, None if of_weights is None else of_weights.reshape(kernels.shape)


def _tokens(x: Tensor) -> Tensor:
    """``(B, C, H, W) -> (B, H * W, C)``, a view of channels_last input."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, x.shape[1])


def _like(biases: Tensor, x: Tensor) -> Tensor:
    return biases if biases.dtype == x.dtype else biases.to(x.dtype)


def _linear(x: Tensor, kernels: Tensor, biases: Tensor | None) -> Tensor:
    y = x.reshape(x.shape[0], -1, x.shape[-1]) @ kernels.transpose(1, 2)
    if biases is not None:
        y = y + biases.to(y.dtype).unsqueeze(1)
    return y.reshape(*x.shape[:-1], kernels.shape[1])


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


STRATEGY = Strategy(refuses=refuses, convolve_each=convolve_each)
