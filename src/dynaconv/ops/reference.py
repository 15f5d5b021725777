"""The definition of the mixing operation. Every strategy must equal it; it is never optimised."""

from __future__ import annotations

import torch
from torch import Tensor

from dynaconv.ops.geometry import Geometry, resolve_padding
from dynaconv.ops.ordinary import ordinary


def reference(x: Tensor, bank: Tensor, routing: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """``y[b] = conv(x[b], sum_k routing[b, k] * bank[k]) + sum_k routing[b, k] * bias[k]``, an example at a time.

    An empty batch is convolved with the empty sum, a kernel of zeros: the output is empty, of the right shape, and
    gradients are zeros.
    """
    x, geometry = resolve_padding(x, bank.shape[-geometry.dims :] if geometry.dims else (), geometry)
    if x.shape[0] == 0:
        nobody = routing.sum(dim=0)
        return ordinary(x, _mixture(bank, nobody), None if bias is None else _mixture(bias, nobody), geometry)
    outputs = []
    for example, weights in zip(x.split(1), routing, strict=True):
        own_bias = None if bias is None else _mixture(bias, weights)
        outputs.append(ordinary(example, _mixture(bank, weights), own_bias, geometry))
    return torch.cat(outputs)


def _mixture(experts: Tensor, weights: Tensor) -> Tensor:
    total = torch.zeros_like(experts[0])
    for expert, weight in zip(experts, weights.to(experts.dtype), strict=True):
        total = total + weight * expert
    return total
