"""When the kernels of our own (:mod:`dynaconv.kernels.cpu`) may run a call."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dynaconv.kernels import cpu as native
from dynaconv.ops.call import Call


def refuses(call: Call) -> str | None:
    """Why they may not, whatever the layer; else None."""
    if call.device != "cpu" or call.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return "it computes in float32 on a CPU"
    if not call.channels_last:
        return "the input is not in channels_last"
    if not call.plain:
        return "the call is traced or watched, and torch does not see into a kernel of our own"
    reason = native.why_not()
    return None if reason is None else f"the kernels are not available: {reason}"


def differentiable_gradients(y: Tensor, inputs: Sequence[Tensor], gradient: Tensor) -> list[Tensor | None]:
    """Gradients of ``y``, computed by torch, as functions of all that they are made of; None where none is needed."""
    wanted = [tensor for tensor in inputs if tensor.requires_grad]
    found = iter(torch.autograd.grad(y, wanted, gradient, create_graph=True))
    return [next(found) if tensor.requires_grad else None for tensor in inputs]
