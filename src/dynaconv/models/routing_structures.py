"""The routing structures of Yang et al. 2019, Table 3: which scope uses which router."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from dynaconv.layers import DynamicLayer
from dynaconv.models.options import Design
from dynaconv.models.placement import RoutingScope
from dynaconv.routing import Router, Scope, ScopedRouter, SigmoidRouter, SoftmaxRouter, share_router


class LeadingRouter(Router):
    """The router of a single layer whose routing weights later scopes use too.

    It returns what its child ``router`` returns, and keeps it until the last of those scopes has run.
    """

    def __init__(self, router: Router, name: str, until: nn.Module) -> None:
        super().__init__(router.in_channels, router.experts)
        self.key = share_router(self, router, name=name, until=until)
        self.shared = ScopedRouter(self.key, router.in_channels, router.experts)

    def forward(self, x: Tensor) -> Tensor:
        return self.shared(x)


class ChainedRouter(SigmoidRouter):
    """Hierarchical routing: ``sigmoid([GAP(x), routing weights of the scope before] R + b)``."""

    def __init__(self, in_channels: int, experts: int, before: Scope, *, expert_dropout: float = 0.0) -> None:
        super().__init__(in_channels, experts, expert_dropout=expert_dropout, previous_experts=experts)
        self.before = ScopedRouter(before, in_channels, experts)

    def forward(self, x: Tensor, previous: Tensor | None = None) -> Tensor:
        return super().forward(x, self.before(x) if previous is None else previous)


def make_router(in_channels: int, design: Design, before: Scope | None = None) -> Router:
    """The router of one scope; ``before`` is the scope that is fed in, for hierarchical routing."""
    experts, dropout = design.experts, design.expert_dropout
    if before is not None:
        return ChainedRouter(in_channels, experts, before, expert_dropout=dropout)
    if design.routing == "softmax":
        plain = design.method == "condconv"  # the sigmoid's linear layer, and a softmax over it
        return SoftmaxRouter(
            in_channels,
            experts,
            temperature=design.temperature,
            hidden=0 if plain else None,
            bias=plain,
            expert_dropout=dropout,
        )
    widths = {"hidden_small": in_channels // 8, "hidden_medium": in_channels, "hidden_large": 8 * in_channels}
    hidden = widths.get(design.routing)
    return SigmoidRouter(
        in_channels, experts, hidden=None if hidden is None else max(1, hidden), expert_dropout=dropout
    )


def install_routers(model: nn.Module, scopes: Sequence[RoutingScope], design: Design, dtype: torch.dtype) -> None:
    """Give every dynamic layer of ``model`` its router, or a :class:`ScopedRouter` for the router of its scope."""
    leaders = _leaders(len(scopes), design.routing)
    chained = design.routing == "hierarchical"
    keys: dict[int, Scope | None] = {}
    for index, scope in enumerate(scopes):
        if leaders[index] != index:
            _follow(model, scope, cast(Scope, keys[leaders[index]]))
            continue
        before = keys[index - 1] if chained and index else None
        last = max(reader for reader, leader in enumerate(leaders) if leader == index)
        if chained:
            last = min(index + 1, len(scopes) - 1)
        router = make_router(_input_channels(model, scope), design, before).to(dtype)
        keys[index] = _lead(model, scope, router, None if last == index else _module(model, scopes[last]))


def _leaders(count: int, routing: str) -> list[int]:
    """For every scope the one whose routing weights it uses."""
    if routing == "single":
        return [0] * count
    if routing == "partially_shared":
        return [index - index % 2 for index in range(count)]
    return list(range(count))


def _lead(model: nn.Module, scope: RoutingScope, router: Router, until: nn.Module | None) -> Scope | None:
    """Make ``router`` the router of a scope; return None if only one layer uses it."""
    if scope.block is not None:
        key = share_router(model.get_submodule(scope.block), router, name=scope.block, until=until)
        _follow(model, scope, key)
        return key
    layer = cast(DynamicLayer, model.get_submodule(scope.name))
    if until is None:
        layer.router = router
        return None
    leading = LeadingRouter(router, scope.name, until)
    layer.router = leading
    return leading.key


def _follow(model: nn.Module, scope: RoutingScope, key: Scope) -> None:
    for name in scope.layers:
        layer = cast(DynamicLayer, model.get_submodule(name))
        layer.router = ScopedRouter(key, channels_of(layer), layer.experts)


def _module(model: nn.Module, scope: RoutingScope) -> nn.Module:
    return model.get_submodule(scope.block or scope.name)


def _input_channels(model: nn.Module, scope: RoutingScope) -> int:
    """Channels of a block's input are those of its first convolution's, dynamic or not."""
    convolutions = (module for module in _module(model, scope).modules() if _reads_channels(module))
    return channels_of(next(convolutions))


def _reads_channels(module: nn.Module) -> bool:
    return isinstance(module, (DynamicLayer, nn.Conv2d, nn.Linear))


def channels_of(layer: nn.Module) -> int:
    """Input channels of a convolution, or input features of a linear layer."""
    return cast(int, getattr(layer, "in_channels", 0) or layer.in_features)
