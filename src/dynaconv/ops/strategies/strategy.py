"""The class of strategies: a strategy is one way to run the two operations. All are equal up to rounding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dynaconv.kernels import cpu
from dynaconv.ops.call import Call
from dynaconv.ops.convolution import mix_biases, mix_kernels
from dynaconv.ops.geometry import Geometry

ConvolveEach = Callable[[Tensor, Tensor, Tensor | None, Geometry], Tensor]
Mix = Callable[[Tensor, Tensor, Tensor, Tensor | None, Geometry], Tensor]


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """One way to run the two operations.

    Attributes:
        refuses: returns the reason why it cannot run a call, in one sentence, or None if it can.
        convolve_each: ``(x, kernels, biases, geometry) -> y`` with given kernels; None if it must mix them itself.
        mix: ``(x, bank, routing, bias, geometry) -> y``; None if mixing is a separate step before ``convolve_each``.
        unasked: why it is not chosen for a call that it could run.
    """

    refuses: Callable[[Call], str | None]
    convolve_each: ConvolveEach | None = None
    mix: Mix | None = None
    unasked: str = "slower here"

    def refusal(self, call: Call) -> str | None:
        """Why it cannot run this call, or None."""
        if call.operation == "convolve_each" and self.convolve_each is None:
            return "it mixes the kernels itself; this call brings them mixed"
        return self.refuses(call)

    def run_mix(self, x: Tensor, bank: Tensor, routing: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
        """The mixture, fused into the convolution where the strategy does so."""
        if self.mix is not None:
            return self.mix(x, bank, routing, bias, geometry)
        assert self.convolve_each is not None, "a strategy has one of the two operations at least"
        return self.convolve_each(x, mix_kernels(bank, routing), mix_biases(bias, routing), geometry)


def refuses_c_kernel(call: Call) -> str | None:
    """Why the C kernels (:mod:`dynaconv.kernels.cpu`) cannot run a call, for reasons common to all layers; or None."""
    if call.device != "cpu" or call.dtype != torch.float32 or call.autocast is not None:
        return "it computes in float32 on a CPU"
    if call.exporting:
        return "an exported graph must run where this library is not installed"
    if not call.plain:
        return "the call is transformed or watched, and torch does not see into a kernel of our own"
    reason = cpu.why_not()
    return None if reason is None else f"the kernels are not available: {reason}"
