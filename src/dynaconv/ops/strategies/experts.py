"""Strategy ``experts``: every expert over the whole batch by a C kernel, for kernels that are used at few positions.

The sum of ``branches``, ``sum_k routing[:, k] * conv(x, bank[k])``, without its waste: the experts' outputs stay in
registers, nothing is multiplied with padding, and the gradient of the bank is computed without one per example.
"""

from __future__ import annotations

import math

from torch import Tensor

from dynaconv.kernels.cpu import operators
from dynaconv.ops.call import Call
from dynaconv.ops.convolution import mix_biases
from dynaconv.ops.geometry import Geometry
from dynaconv.ops.strategies.strategy import Strategy, refuses_c_kernel


def refuses(call: Call) -> str | None:
    geometry = call.geometry
    if geometry.dims not in (0, 2) or geometry.transposed or geometry.groups != 1:
        return "it is for linear layers and convolutions over images, in one group"
    return refuses_c_kernel(call)


def mix(x: Tensor, bank: Tensor, routing: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """``sum_k routing[:, k] * conv(x, bank[k])`` plus the mixed bias."""
    biases = mix_biases(bias, routing)
    if geometry.dims == 0:
        return _linear(x, bank, routing, biases)
    moves = geometry.stride, geometry.padding, geometry.dilation
    return operators.experts_conv2d(x, bank, routing.float(), biases, *moves)


def _linear(x: Tensor, bank: Tensor, routing: Tensor, biases: Tensor | None) -> Tensor:
    """``(B, *, in) -> (B, *, out)``. The rows are a channels_last map of height 1; this view needs no copy."""
    rows = math.prod(x.shape[1:-1])
    if rows == 0:  # a convolution wants one pixel at least
        inputs = [x, bank, routing] if biases is None else [x, bank, routing, biases]
        nothing = sum(tensor.sum().to(x.dtype) for tensor in inputs)  # so that every input has a gradient, of zeros
        return x.new_zeros(*x.shape[:-1], bank.shape[1]) + 0 * nothing
    maps = x.reshape(x.shape[0], 1, rows, x.shape[-1]).permute(0, 3, 1, 2)
    moves = (1, 1), (0, 0), (1, 1)
    y = operators.experts_conv2d(maps, bank[..., None, None], routing.float(), biases, *moves)
    return y.permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)


STRATEGY = Strategy(refuses=refuses, mix=mix)
