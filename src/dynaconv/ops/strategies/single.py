"""Strategy ``single``: for one example, mixing the kernels leaves one ordinary convolution."""

from __future__ import annotations

from torch import Tensor

from dynaconv.ops.call import Call
from dynaconv.ops.convolution import convolve
from dynaconv.ops.geometry import Geometry
from dynaconv.ops.strategies.strategy import Strategy


def refuses(call: Call) -> str | None:
    if call.exporting:
        return "it would freeze the batch size of the exported graph at 1"
    if call.batch != 1:
        return f"the batch holds {call.batch} examples; this form is for one"
    return None


def convolve_each(x: Tensor, kernels: Tensor, biases: Tensor | None, geometry: Geometry) -> Tensor:
    """``conv(x, kernels[0], biases[0])`` with ``B = 1``."""
    return convolve(x, kernels[0], None if biases is None else biases[0], geometry)


STRATEGY = Strategy(refuses=refuses, convolve_each=convolve_each)
