"""The definition of the two operations. Every strategy must equal it; it is never optimised."""

from __future__ import annotations

import torch
from torch import Tensor

from dynaconv.ops.convolution import convolve
from dynaconv.ops.geometry import Geometry, resolve_padding


def reference(x: Tensor, bank: Tensor, routing: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """``y[b] = conv(x[b], sum_k routing[b, k] * bank[k]) + sum_k routing[b, k] * bias[k]``, an example at a time."""
    if x.shape[0] == 0:
        return _empty(x, bank, routing, bias, geometry)
    kernels = torch.stack([_mixture(bank, weights) for weights in routing])
    biases = None if bias is None else torch.stack([_mixture(bias, weights) for weights in routing])
    return reference_each(x, kernels, biases, geometry)


def reference_each(x: Tensor, kernels: Tensor, biases: Tensor | None, geometry: Geometry) -> Tensor:
    """``y[b] = conv(x[b], kernels[b]) + biases[b]``, an example at a time, for a batch of at least one."""
    x, geometry = resolve_padding(x, kernels.shape[-geometry.dims :] if geometry.dims else (), geometry)
    each_bias = [None] * x.shape[0] if biases is None else biases.unbind()
    examples = zip(x.split(1), kernels, each_bias, strict=True)
    return torch.cat([convolve(example, kernel, bias, geometry) for example, kernel, bias in examples])


def _empty(x: Tensor, bank: Tensor, routing: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """The output of an empty batch: empty, with the right shape; all gradients are zeros. The kernel is a sum over no
    examples, so it is zero."""
    x, geometry = resolve_padding(x, bank.shape[-geometry.dims :] if geometry.dims else (), geometry)
    zeros = routing.sum(dim=0)
    return convolve(x, _mixture(bank, zeros), None if bias is None else _mixture(bias, zeros), geometry)


def _mixture(experts: Tensor, weights: Tensor) -> Tensor:
    total = torch.zeros_like(experts[0])
    for expert, weight in zip(experts, weights.to(experts.dtype), strict=True):
        total = total + weight * expert
    return total
