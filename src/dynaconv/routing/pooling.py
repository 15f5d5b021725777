"""Global average pooling: what both papers' routers read."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def global_average_pool(x: Tensor) -> Tensor:
    """``(B, C, *space) -> (B, C)``, the mean over space, in float32 or better; ``(B, C)`` stays as it is."""
    wide = torch.promote_types(x.dtype, torch.float32)
    if x.dim() == 2:
        return x.to(wide)
    space = tuple(range(2, x.dim()))
    if not torch.is_grad_enabled():
        return x.mean(dim=space, dtype=wide)  # one operation, and counted as the mean that the papers count
    # The backward pass of a mean writes a map of the input's size; that of a sum only repeats a number per channel.
    return x.sum(dim=space, dtype=wide) / math.prod(x.shape[2:])
