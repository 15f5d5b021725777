"""Strategy ``branches``: K ordinary convolutions, then the weighted sum of their outputs.

CondConv equals this linear mixture of experts (Yang et al. 2019, section 3), and the paper trains with it for few
experts. It costs K convolutions, each an ordinary one over the whole batch. An exported graph keeps a dynamic batch
size.
"""

from __future__ import annotations

from torch import Tensor

from dynaconv.ops.call import Call
from dynaconv.ops.convolution import convolve
from dynaconv.ops.geometry import Geometry
from dynaconv.ops.strategies.strategy import Strategy


def refuses(call: Call) -> str | None:
    return None


def mix(x: Tensor, bank: Tensor, routing: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """``sum_k routing[:, k] * conv(x, bank[k], bias[k])``"""
    total: Tensor | None = None
    for expert in range(bank.shape[0]):
        y = convolve(x, bank[expert], None if bias is None else bias[expert], geometry)
        weight = routing[:, expert].to(y.dtype).reshape(-1, *(1,) * (y.dim() - 1))
        total = weight * y if total is None else total + weight * y
    assert total is not None, "a bank has at least one expert"
    return total


STRATEGY = Strategy(refuses=refuses, mix=mix)
