"""Strategy ``single``: for one example, mixing the kernels leaves one ordinary convolution."""

from __future__ import annotations

from torch import Tensor

from dynaconv.ops.call import Call
from dynaconv.ops.geometry import Geometry
from dynaconv.ops.ordinary import mixed_biases, mixed_kernels, ordinary


def refuses(call: Call) -> str | None:
    if call.exporting:
        return "it would freeze the batch size of the exported graph at 1"
    if call.batch != 1:
        return f"the batch holds {call.batch} examples; this form is for one"
    return None


def run(x: Tensor, bank: Tensor, routing: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """``conv(x, (routing @ bank)[0], (routing @ bias)[0])`` with ``B = 1``."""
    biases = mixed_biases(bias, routing)
    return ordinary(x, mixed_kernels(bank, routing)[0], None if biases is None else biases[0], geometry)
