"""Routers that start with weights that sum to one, so that a twin starts as its static network."""

from __future__ import annotations

import math

import torch
from torch import nn

from dynaconv.routing import SigmoidRouter


def normalise_start(router: nn.Module) -> bool:
    """Make a sigmoid router answer ``1 / K`` to every input at first; answer whether its weights sum to one.

    The last layer's weights become zero and its bias ``logit(1 / K)``: the sum is one whatever the input, and the
    gradient still tells experts and inputs apart. A single expert cannot reach 1 by a sigmoid; a bias of 20 is equal
    to it in float32. Softmax routers sum to one by themselves and are left alone.
    """
    if getattr(router, "sums_to_one", False):
        return True
    if not isinstance(router, SigmoidRouter) or router.fc.bias is None:
        return False
    experts = router.experts
    bias = 20.0 if experts == 1 else -math.log(experts - 1)
    with torch.no_grad():
        router.fc.weight.zero_()
        router.fc.bias.fill_(bias)
    return True
