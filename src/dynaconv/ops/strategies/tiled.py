"""Strategy ``tiled``: dense layers over images on a CPU, by a C kernel that works in channels_last.

One block of an example's kernel is mixed and multiplied with the pixels while it is in the cache; mixed kernels are
never written to memory. Likewise in the backward pass: the gradient of a kernel is added block by block to the
gradients of the bank and of the routing weights.
"""

from __future__ import annotations

from torch import Tensor

from dynaconv.kernels.cpu import operators
from dynaconv.ops.call import Call
from dynaconv.ops.convolution import mix_biases
from dynaconv.ops.geometry import Geometry
from dynaconv.ops.strategies.strategy import Strategy, refuses_c_kernel


def refuses(call: Call) -> str | None:
    geometry = call.geometry
    if geometry.dims != 2 or geometry.transposed or geometry.groups != 1:
        return "it is for convolutions over images, in one group"
    return refuses_c_kernel(call)


def mix(x: Tensor, bank: Tensor, routing: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Mix and multiply block by block; biases are mixed by torch."""
    biases = mix_biases(bias, routing)
    moves = geometry.stride, geometry.padding, geometry.dilation
    return operators.mix_conv2d(x, bank, routing.float(), biases, *moves)


STRATEGY = Strategy(refuses=refuses, mix=mix)
