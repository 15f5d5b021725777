"""Where the routers of a network are, and how their calls can be observed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dynaconv.inference import FrozenLayer
from dynaconv.layers.base import DynamicLayer
from dynaconv.routing import Scope, ScopedRouter, scopes_of
from dynaconv.torch_private import compiler_was_used

WHOLE = "network"
"""The name of a router that belongs to the network as a whole, whose own name is empty."""


@dataclass(frozen=True)
class RouterPlace:
    """A router and the layers that use what it returns.

    Attributes:
        name: of the layer, or of the block whose layers share the router.
        router: the module that computes the routing weights.
        layers: names of the layers that use them.
        experts: K.
        kind: ``"softmax"``, ``"sigmoid"``, or the name of the router's class.
    """

    name: str
    router: nn.Module
    layers: tuple[str, ...]
    experts: int
    kind: str


def routers_of(model: nn.Module) -> list[RouterPlace]:
    """Every router of a network, in the order of its modules; layers that share a router are one place.

    Raises:
        TypeError: not a module.
        ValueError: the network has no dynamic layer.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is {type(model).__name__}; expected a torch.nn.Module")
    model = unwrapped(model)
    blocks = {place.scope: place.block for place in scopes_of(model)}
    routers: dict[nn.Module, str] = {}
    layers: dict[nn.Module | Scope, list[str]] = {}
    experts: dict[nn.Module | Scope, int] = {}
    for name, module in model.named_modules():
        router = module._modules.get("router")
        if router is not None and isinstance(module, (DynamicLayer, FrozenLayer)):
            key = router.scope if isinstance(router, ScopedRouter) else router
            layers.setdefault(key, []).append(name or WHOLE)
            experts[key] = module.experts
            if not isinstance(router, ScopedRouter):
                routers.setdefault(router, name or WHOLE)
        elif getattr(module, "is_router", False) and not isinstance(module, ScopedRouter):
            routers.setdefault(module, name.removesuffix("router").removesuffix(".") or WHOLE)
    for scope, block in blocks.items():
        router = model.get_submodule(f"{block}.router" if block else "router")
        routers.setdefault(router, block or WHOLE)
        layers.setdefault(router, []).extend(layers.get(scope, []))
        experts.setdefault(router, experts.get(scope, 0))
    if not routers:
        raise ValueError(
            f"{type(model).__name__} has no dynamic layer, so there is no routing to look at; make its layers dynamic "
            "with dynaconv.dynamize(model), or take one of the papers' networks. (Scripted and exported networks have "
            "no routers of their own any more: pass the network before that)"
        )
    return [
        RouterPlace(
            name,
            router,
            tuple(layers.get(router, [])),
            int(getattr(router, "experts", 0) or experts.get(router, 0)),
            _kind(router),
        )
        for router, name in routers.items()
    ]


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside what ``torch.compile(model)`` returned; any other network itself."""
    inner = model._modules.get("_orig_mod")
    return model if inner is None else inner


def factors_of(returned: Any) -> dict[str, Tensor]:
    """The tensors that a router returned: one, or the named factors of a record, a named tuple or a dictionary.

    The routing weights themselves have the empty name; so has the factor called ``kernel``.
    """
    if isinstance(returned, Tensor):
        return {"": returned}
    if isinstance(returned, dict):
        named = returned
    elif hasattr(returned, "_asdict"):
        named = returned._asdict()
    else:
        named = dict(getattr(returned, "__dict__", {}))
    found = {"" if name == "kernel" else name: value for name, value in named.items() if isinstance(value, Tensor)}
    if not found:
        raise TypeError(f"a router returned {type(returned).__name__}; expected a tensor (B, K), or named ones")
    return found


def _kind(router: nn.Module) -> str:
    softmax = getattr(router, "softmax", getattr(router, "sums_to_one", None))
    if softmax is None or not hasattr(router, "in_channels"):
        return type(router).__name__
    name = type(router).__name__
    return ("softmax" if softmax else "sigmoid") if name in _PAPERS else name


_PAPERS = ("SoftmaxRouter", "SigmoidRouter", "FrozenRouter")


class _Stance:
    """How many contexts want compiled code to run uncompiled. torch has one such setting for all threads."""

    def __init__(self) -> None:
        self.lock, self.users, self.stance = threading.Lock(), 0, None


_STANCE = _Stance()


@contextmanager
def uncompiled() -> Iterator[None]:
    """Context in which what torch.compile has compiled runs as ordinary Python, in every thread.

    A compiled graph does not call the hooks that were added after it was made, and there would be nothing to observe.
    """
    if not compiler_was_used():
        yield
        return
    state: Any = _STANCE
    with state.lock:
        if state.users == 0:
            state.stance = torch.compiler.set_stance("force_eager")
        state.users += 1
    try:
        yield
    finally:
        with state.lock:
            state.users -= 1
            if state.users == 0:
                state.stance.__exit__(None, None, None)
                state.stance = None
