"""Expert dropout: experts dropped at random in training."""

from __future__ import annotations

import torch
from torch import Tensor


def drop_experts(routing: Tensor, probability: float, *, keep_sum: bool) -> Tensor:
    """Drop every expert of every example with ``probability``; the rest carries the weight.

    Args:
        routing: ``(B, K)`` routing weights.
        probability: of dropping one expert, in [0, 1).
        keep_sum: True scales an example's surviving weights so that their sum stays what it was (for routers whose
            weights sum to one); False divides them by the probability that an expert is kept, as dropout does: the
            expectation of every weight stays what it was.

    Source: Yang et al. 2019, section 4.1, "randomly dropping out experts during training", for their ResNets. The paper
    gives neither formula nor rate; this is our reading. An example that would lose all its experts keeps them all, so
    that no layer answers with nothing; so an expert is kept with ``1 - probability + probability ** K``.
    """
    keep = torch.rand_like(routing) >= probability
    nobody = ~keep.any(dim=1, keepdim=True)
    kept = torch.where(keep | nobody, routing, 0.0)
    if keep_sum:
        tiny = torch.finfo(routing.dtype).tiny
        return kept * (routing.sum(dim=1, keepdim=True) / kept.sum(dim=1, keepdim=True).clamp_min(tiny))
    return kept / (1.0 - probability + probability ** routing.shape[1])
