"""Strategy ``stencil``: depthwise layers over images on a CPU, by a C kernel that works in channels_last.

torch has no convolution with one kernel per example. ``grouped`` must merge the batch into the channels, which needs a
contiguous copy of channels_last maps; ``loop`` calls torch for each example and concatenates the outputs. A depthwise
convolution does few multiply-adds per number, so these copies cost more than the convolution itself.
"""

from __future__ import annotations

from torch import Tensor

from dynaconv.kernels.cpu import operators
from dynaconv.ops.call import Call
from dynaconv.ops.geometry import Geometry
from dynaconv.ops.strategies.strategy import Strategy, refuses_c_kernel


def refuses(call: Call) -> str | None:
    geometry = call.geometry
    if not call.depthwise or geometry.dims != 2 or geometry.transposed or call.bank_shape[1] != geometry.groups:
        return "it is for depthwise convolutions over images, as many channels out as in"
    return refuses_c_kernel(call)


def convolve_each(x: Tensor, kernels: Tensor, biases: Tensor | None, geometry: Geometry) -> Tensor:
    """One pass over the maps."""
    return operators.depthwise_each(x, kernels, biases, geometry.stride, geometry.padding, geometry.dilation)


STRATEGY = Strategy(refuses=refuses, convolve_each=convolve_each)
