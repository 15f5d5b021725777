"""Strategy ``grouped``: the batch is folded into the groups of one convolution (the usual form of peers)."""

from __future__ import annotations

from torch import Tensor

from dynaconv.ops.call import Call
from dynaconv.ops.convolution import convolve
from dynaconv.ops.geometry import Geometry
from dynaconv.ops.strategies.strategy import Strategy


def refuses(call: Call) -> str | None:
    if call.geometry.dims == 0:
        return "a linear layer has no channels-first input to fold the batch into"
    if call.exporting:
        return "the number of groups is a constant of the exported graph: it would freeze the batch size"
    return None


def convolve_each(x: Tensor, kernels: Tensor, biases: Tensor | None, geometry: Geometry) -> Tensor:
    """``(B, C, *space) -> (1, B*C, *space)``, one convolution with ``B * groups`` groups, and back."""
    batch = x.shape[0]
    folded = x.reshape(1, -1, *x.shape[2:])
    flat = None if biases is None else biases.flatten()
    y = convolve(folded, kernels.flatten(0, 1), flat, geometry, batch * geometry.groups)
    return y.reshape(batch, -1, *y.shape[2:])


STRATEGY = Strategy(refuses=refuses, convolve_each=convolve_each)
