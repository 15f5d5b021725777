"""Scopes: several layers of a block that share one routing, computed once per pass from the block's input.

While a block runs, its routing weights are in a thread-local table, under the scope's key. Two threads that run one
model never see each other's weights. A block that is run again (activation checkpointing) overwrites its entry. Copies
of a model have other keys.

A *part* of a block may be checkpointed too (``use_reentrant=False``). It is run again in the backward pass, when the
block is not running, perhaps after other passes and in another thread. So the routing weights that such a part reads
are kept with the checkpoint itself, as long as the graph of that pass lives.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from dynaconv.routing.router import Router
from dynaconv.routing.tracing import is_traced
from dynaconv.torch_private import checkpointed_part, in_reentrant_checkpoint


class Scope:
    """The key of a scope, compared by identity; it is copied and pickled together with its model."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"Scope({self.name!r})"


class _Table(threading.local):
    """For every scope that is open in this thread: its routing weights, and whether gradients were enabled."""

    def __init__(self) -> None:
        self.routing: dict[Scope, Tensor] = {}
        self.gradients: dict[Scope, bool] = {}

    def open(self, scope: Scope, routing: Tensor) -> None:
        self.routing[scope], self.gradients[scope] = routing, torch.is_grad_enabled()

    def close(self, scope: Scope) -> None:
        self.routing.pop(scope, None)
        self.gradients.pop(scope, None)


_TABLE = _Table()

# Checkpointed part -> the routing weights that it read. The key is freed together with the graph of its pass.
_KEPT: WeakKeyDictionary[Any, dict[Scope, Tensor]] = WeakKeyDictionary()


class ScopedRouter(Router):
    """A layer's view of its scope: returns the routing weights that the block computed in this pass.

    It has no parameters. Outside the block's forward it raises RuntimeError.
    """

    def __init__(self, scope: Scope, in_channels: int, experts: int) -> None:
        super().__init__(in_channels, experts)
        self.scope = scope

    def forward(self, x: Tensor) -> Tensor:
        routing = _TABLE.routing.get(self.scope)
        part = None if torch.compiler.is_compiling() else checkpointed_part()
        if routing is None and part is not None:
            routing = _KEPT.get(part, {}).get(self.scope)
        elif routing is not None and not is_traced(routing):
            self._keep(routing, part)
        if routing is None:
            raise RuntimeError(
                f"this layer shares the router of {self.scope.name!r}, which is not running; "
                "call that block, or pass routing weights: layer(x, routing). (Inside the block one level of "
                "activation checkpointing with use_reentrant=False is possible)"
            )
        return routing

    def _keep(self, routing: Tensor, part: Any) -> None:
        """Keep the routing weights until the checkpointed part that is running now is run again."""
        if part is not None:
            kept = routing.detach().requires_grad_(routing.requires_grad)
            _KEPT.setdefault(part, {})[self.scope] = kept
        elif _TABLE.gradients[self.scope] and not torch.is_grad_enabled() and in_reentrant_checkpoint():
            raise RuntimeError(
                f"a part of {self.scope.name!r} is checkpointed with use_reentrant=True, and its layers share the "
                "router of the block, which gets no gradient from such a part; pass use_reentrant=False to "
                "torch.utils.checkpoint.checkpoint, or give the layers routers of their own (share='layer')"
            )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, scope={self.scope.name!r}"


class _Open:
    """Forward pre-hook of a block: compute its routing weights. A class, so that models pickle."""

    def __init__(self, scope: Scope, after: Scope | None, reads: int | str | None) -> None:
        self.scope, self.after, self.reads = scope, after, reads

    def _read(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.reads is None:
            return args[0] if args else next(iter(kwargs.values()), None)
        if isinstance(self.reads, int):
            return args[self.reads] if self.reads < len(args) else None
        return kwargs.get(self.reads)

    def __call__(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = self._read(args, kwargs)
        if not isinstance(x, Tensor) and not is_traced(x):
            raise TypeError(
                f"{self.scope.name!r} shares one router and got {type(x).__name__} as its input; expected one tensor: "
                "give its layers routers of their own (share='layer')"
            )
        router = block.get_submodule("router")
        if self.after is None:
            _TABLE.open(self.scope, router(x))
            return
        previous = _TABLE.routing.get(self.after)
        if previous is None:
            raise RuntimeError(
                f"{self.scope.name!r} needs the routing weights of {self.after.name!r}, which is not running; call the "
                "whole network (hierarchical routing cannot recompute a part of it)"
            )
        _TABLE.open(self.scope, router(x, previous))


class _Close:
    """Forward hook: forget the routing weights, also when the block raised."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    def __call__(self, block: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        _TABLE.close(self.scope)


def share_router(
    block: nn.Module,
    router: nn.Module,
    *,
    name: str = "block",
    until: nn.Module | None = None,
    after: Scope | None = None,
    reads: int | str | None = None,
) -> Scope:
    """Make ``block`` a scope: ``router`` becomes its child ``router`` and runs once per pass, on the block's input.

    Give the layers inside ``router=ScopedRouter(scope, in_channels, experts)``.

    Args:
        block: the module whose input the router reads.
        router: ``(B, C, *space) -> (B, K)``.
        name: of the scope, for error messages.
        until: the module at whose end the routing weights are forgotten, when layers beyond ``block`` use them (one
            router for many blocks; Hierarchical routing). ``block`` itself by default.
        after: the scope whose routing weights are fed to ``router`` as its second argument (Hierarchical routing of
            Yang et al. 2019, Table 3); it must still be known when ``block`` runs, see ``until``.
        reads: which argument of ``block`` the router reads: its position, or its keyword. The first one by default.

    Raises:
        ValueError: ``block`` has a child or attribute named ``router`` already.
        TypeError: ``block`` is an ``nn.Sequential`` with its forward: it would run the router as its last layer.
    """
    if isinstance(block, nn.Sequential) and type(block).forward is nn.Sequential.forward:
        raise TypeError(
            f"{name!r} is a Sequential, which would run its child 'router' as its last layer; make the scope of a "
            "module with a forward of its own that calls it"
        )
    if hasattr(block, "router"):
        raise ValueError(f"{name!r} has an attribute 'router' already; a scope needs that name")
    scope = Scope(name)
    block.add_module("router", router)
    block.register_forward_pre_hook(_Open(scope, after, reads), with_kwargs=True)
    (block if until is None else until).register_forward_hook(_Close(scope), always_call=True)
    return scope


@dataclass(frozen=True)
class Place:
    """A scope of a network: the arguments with which :func:`share_router` made it, as names."""

    scope: Scope
    block: str
    until: str
    after: str | None
    reads: int | str | None = None


def scopes_of(network: nn.Module) -> list[Place]:
    """Every scope of a network; one that reads another's routing weights (``after``) comes behind it."""
    opened = {
        hook.scope: (name, hook.after, hook.reads)
        for name, module in network.named_modules()
        for hook in module._forward_pre_hooks.values()
        if isinstance(hook, _Open)
    }
    closed = {
        hook.scope: name
        for name, module in network.named_modules()
        for hook in module._forward_hooks.values()
        if isinstance(hook, _Close)
    }
    places = [
        Place(scope, block, closed.get(scope, block), None if after is None else opened[after][0], reads)
        for scope, (block, after, reads) in opened.items()
    ]

    def depth(place: Place) -> int:
        after = opened[place.scope][1]
        return 0 if after is None else 1 + depth(next(other for other in places if other.scope is after))

    return sorted(places, key=depth)
