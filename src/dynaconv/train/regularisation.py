"""Regularisation of the routing: a loss that keeps all experts in use, and one that keeps their kernels different."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dynaconv.errors import UserError
from dynaconv.layers.base import DynamicLayer
from dynaconv.routing import PooledRouter, ScopedRouter
from dynaconv.train.settings import LoopSettings

NAMES = ("load_balance", "expert_diversity")


def load_balance(routing: Tensor) -> Tensor:
    """``CV(p)^2 = K sum_k p_k^2 - 1`` of the batch's mean shares ``p_k = mean_b w[b, k] / sum_j w[b, j]``.

    0 when the batch uses all experts alike (single images need not), ``K - 1`` when it uses one. Source: the importance
    loss of Shazeer et al., "Outrageously Large Neural Networks", 2017, eq. 7, with the shares of the routing weights as
    the importance; neither paper of dynamic convolution has such a loss.

    Shapes:
        ``(B, K)`` to a scalar, in float32 or better.
    """
    weights = routing.to(torch.promote_types(routing.dtype, torch.float32)).clamp_min(0.0)
    total = weights.sum(dim=1, keepdim=True)
    shares = (weights / total.clamp_min(torch.finfo(weights.dtype).tiny)).mean(dim=0)
    return shares.shape[0] * shares.square().sum() - 1.0


def kernel_likeness(bank: Tensor) -> Tensor:
    """Mean over the pairs of experts of ``cos(W_i, W_j)^2``: 0 for kernels at right angles, 1 for equal ones.

    Experts that are exactly equal stay so under it: the gradient there is zero. Source: the orthogonality penalties of
    Bansal et al., "Can We Gain More from Orthogonality Regularizations in Training Deep CNNs?", 2018, with the expert
    kernels as the vectors; neither paper of dynamic convolution has such a loss.

    Shapes:
        ``(K, *kernel)`` to a scalar; 0 for K = 1.
    """
    experts = bank.shape[0]
    if experts < 2:
        return bank.new_zeros((), dtype=torch.promote_types(bank.dtype, torch.float32))
    flat = bank.flatten(1).to(torch.promote_types(bank.dtype, torch.float32))
    unit = flat / flat.norm(dim=1, keepdim=True).clamp_min(torch.finfo(flat.dtype).tiny)
    squares = (unit @ unit.T).square()
    return (squares.sum() - squares.diagonal().sum()) / (experts * (experts - 1))


class RoutingPenalties:
    """What is added to the task's loss: ``load_balance`` times the mean of :func:`load_balance` over the routers, plus
    ``expert_diversity`` times the mean of :func:`kernel_likeness` over the dynamic layers. Both factors are 0 by
    default, and nothing is computed then.

    With several processes, or a batch in parts, ``p_k`` is the mean of each process's part.

    Raises:
        UserError: a factor is above 0 and the network has nothing that it is about.
    """

    def __init__(self, model: nn.Module, settings: LoopSettings) -> None:
        self.factors = {name: float(getattr(settings, name)) for name in NAMES}
        self.names = [name for name in NAMES if self.factors[name] > 0]
        self._routers = [
            module
            for module in model.modules()
            if getattr(module, "is_router", False) and not isinstance(module, ScopedRouter)
        ]
        self._layers = [module for module in model.modules() if isinstance(module, DynamicLayer)]
        self._seen: list[Tensor] = []
        for name in self.names:
            if not (self._routers if name == "load_balance" else self._layers):
                raise UserError(
                    f"{name} is {self.factors[name]} and the network has no dynamic layer: choose a method, 'dynamic' "
                    "or 'condconv', or one of the papers' networks; or leave it at 0"
                )

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Context of one forward pass, whose routing weights :meth:`terms` needs."""
        self._seen = []
        if "load_balance" not in self.names:
            yield
            return
        handles = [router.register_forward_hook(self._note) for router in self._routers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _note(self, _router: nn.Module, _arguments: Any, routing: Any) -> None:
        if isinstance(routing, Tensor) and routing.dim() == 2:
            self._seen.append(routing)

    def terms(self) -> dict[str, Tensor]:
        """Each penalty of the pass that was watched, before its factor."""
        found = {}
        if "load_balance" in self.names:
            found["load_balance"] = torch.stack([load_balance(routing) for routing in self._seen]).mean()
            self._seen = []
        if "expert_diversity" in self.names:
            likeness = [kernel_likeness(layer.mixed_bank()) for layer in self._layers]
            found["expert_diversity"] = torch.stack(likeness).mean()
        return found

    def added(self, terms: dict[str, Tensor]) -> Tensor | float:
        """The sum that is added to the loss."""
        return sum((self.factors[name] * term for name, term in terms.items()), 0.0)


def set_expert_dropout(model: nn.Module, probability: float) -> int:
    """Set the expert dropout of every router of the papers' kinds; return how many there are.

    Raises:
        UserError: there is none.
    """
    routers = [module for module in model.modules() if isinstance(module, PooledRouter)]
    if not routers:
        raise UserError(
            f"expert_dropout is {probability} and the network has no router that could drop experts: choose a method, "
            "'dynamic' or 'condconv', or one of the papers' networks; or leave it out"
        )
    for router in routers:
        router.expert_dropout = probability
    return len(routers)
