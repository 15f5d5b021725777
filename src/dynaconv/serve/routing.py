"""The routing weights that a network used, example by example."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from dynaconv.inference import FrozenLayer
from dynaconv.layers import DynamicLayer
from dynaconv.routing import ScopedRouter
from dynaconv.routing.scope import scopes_of


@dataclass
class RouterRecord:
    """A router with the layers that use its weights, and the weights ``(B, K)`` of its first call in a recording."""

    name: str
    layers: list[str] = field(default_factory=list)
    weights: Tensor | None = None


def find_routers(network: nn.Module) -> dict[nn.Module, RouterRecord]:
    """The routers of the dynamic layers: a layer's own, named after the layer, or that of its scope's block."""
    blocks = {place.scope: place.block for place in scopes_of(network)}
    found: dict[nn.Module, RouterRecord] = {}
    for name, layer in network.named_modules():
        if not isinstance(layer, (DynamicLayer, FrozenLayer)):
            continue
        router, called = layer.router, name
        if isinstance(router, ScopedRouter):
            called = blocks[router.scope]
            router = network.get_submodule(f"{called}.router" if called else "router")
        found.setdefault(router, RouterRecord(called)).layers.append(name)
    return found


@contextmanager
def recorded_routing(network: nn.Module) -> Iterator[list[RouterRecord]]:
    """The routers that run inside the context, in the order in which they do.

    A router that runs several times is recorded once: a mirrored picture, for keypoints, comes after the picture.
    A frozen layer does not take its router into its one call while it is watched, and returns the same up to rounding.
    """
    routers = find_routers(network)
    ran: list[RouterRecord] = []

    def note(router: nn.Module, _arguments: Any, weights: Tensor) -> None:
        record = routers[router]
        if record.weights is None:
            record.weights = weights.detach()
            ran.append(record)

    handles = [router.register_forward_hook(note) for router in routers]
    try:
        yield ran
    finally:
        for handle in handles:
            handle.remove()
