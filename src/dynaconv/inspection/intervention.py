"""Interventions: what a network does when its layers get other routing weights than their routers return.

Source: Chen et al. 2020, section 5.2, Tables 3 and 4.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from dynaconv.errors import suggest
from dynaconv.inspection.observing import routers_of, uncompiled, unwrapped

Draw = torch.Generator


def average(routing: Tensor) -> Tensor:
    """Every expert gets the mean weight of the example: ``w[b, k] = sum_j routing[b, j] / K``.

    For weights that sum to one that is ``1 / K``, the average kernel of Table 3. Deviation: for a sigmoid router, which
    that paper does not have, the sum of the weights stays what it was, and with it the scale of the output.
    """
    return routing.mean(dim=1, keepdim=True).expand_as(routing).contiguous()


def maximum(routing: Tensor) -> Tensor:
    """The expert with the largest weight gets them all: ``w[b, k] = sum_j routing[b, j]`` for ``k = argmax``, else 0.

    For weights that sum to one that is the kernel ``W[argmax_k routing]`` of Table 3.
    """
    kept = torch.zeros_like(routing)
    return kept.scatter_(1, routing.argmax(dim=1, keepdim=True), routing.sum(dim=1, keepdim=True))


def shuffle_experts(routing: Tensor, draw: Draw) -> Tensor:
    """Every expert gets the weight of another one of the same example: ``w[b, k] = routing[b, p_b(k)]``, ``p(k) != k``.

    ``p_b`` is a random permutation of one cycle (Sattolo's algorithm), another one for every example and layer. One
    expert alone keeps its weight.
    """
    batch, experts = routing.shape
    order = torch.arange(experts).repeat(batch, 1)
    for last in range(experts - 1, 0, -1):
        chosen = torch.randint(last, (batch, 1), generator=draw)
        here = order[:, last : last + 1].clone()
        order[:, last : last + 1] = order.gather(1, chosen)
        order.scatter_(1, chosen, here)
    return routing.gather(1, order.to(routing.device))


def other_images(batch: int, draw: Draw) -> Tensor:
    """A random permutation of the batch of one cycle: no image keeps its place."""
    order = torch.arange(batch)
    for last in range(batch - 1, 0, -1):
        chosen = int(torch.randint(last, (), generator=draw))
        order[[last, chosen]] = order[[chosen, last]]
    return order


INTERVENTIONS: dict[str, str] = {
    "average": "average kernel: sum_k W_k / K",
    "max": "kernel of the largest weight: W_argmax",
    "shuffle_experts": "shuffle per image: every expert gets the weight of another one",
    "shuffle_images": "shuffle across images: every image gets the weights of another one",
}
"""The interventions by name, and what the layers compute."""


class _Intervention:
    """The hooks of one intervention in one thread."""

    def __init__(self, how: str | Callable[[Tensor], Tensor], resolutions: Collection[Any] | None, seed: int) -> None:
        self.how, self.resolutions = how, resolutions
        self.draw = torch.Generator().manual_seed(seed)
        self.thread = threading.get_ident()
        self.order: Tensor | None = None  # of this pass: all layers take the weights of the same other image

    def begin(self, *_: Any) -> None:
        if threading.get_ident() == self.thread:
            self.order = None

    def replace(self, _router: nn.Module, arguments: tuple[Any, ...], routing: Any) -> Tensor | None:
        if threading.get_ident() != self.thread:
            return None
        if not isinstance(routing, Tensor) or routing.dim() != 2:
            raise TypeError(f"a router returned {type(routing).__name__}; interventions are for weights (B, K) alone")
        if self.resolutions is not None and not self._there(tuple(arguments[0].shape[2:])):
            return None
        if callable(self.how):
            changed = self.how(routing)
            if not isinstance(changed, Tensor) or changed.shape != routing.shape:
                raise ValueError(
                    f"the intervention returned {getattr(changed, 'shape', type(changed).__name__)}; expected weights "
                    f"of shape {tuple(routing.shape)}"
                )
            return changed
        if self.how == "average":
            return average(routing)
        if self.how == "max":
            return maximum(routing)
        if self.how == "shuffle_experts":
            return shuffle_experts(routing, self.draw)
        return routing[self._others(len(routing)).to(routing.device)]

    def _there(self, size: tuple[int, ...]) -> bool:
        assert self.resolutions is not None
        wanted = [(one,) * max(1, len(size)) if isinstance(one, int) else tuple(one) for one in self.resolutions]
        return size in wanted

    def _others(self, batch: int) -> Tensor:
        if batch < 2:
            raise ValueError("shuffle_images needs two images in a batch at least: one has no other to swap with")
        if self.order is None or len(self.order) != batch:
            self.order = other_images(batch, self.draw)
        return self.order


@contextmanager
def intervene(
    model: nn.Module,
    how: str | Callable[[Tensor], Tensor],
    *,
    layers: str | Collection[str] | None = None,
    resolutions: Collection[int | tuple[int, ...]] | None = None,
    seed: int = 0,
) -> Iterator[int]:
    """Context in which layers of ``model`` get other routing weights; nothing of it is left afterwards.

    ::

        with dynaconv.intervene(model, "average", resolutions=[112, 56]):
            ...  # attention is off in the layers whose input has these sizes (a row of Table 4)

    Args:
        model: any network with dynamic or frozen layers.
        how: a name of :data:`INTERVENTIONS`, or a function from the weights ``(B, K)`` to those in their place.
            ``"shuffle_images"`` takes the weights of another image *of the batch*, the same one in all layers: let the
            batch hold images of all classes in random order.
        layers: names, or patterns such as ``"blocks.4.*"``, of routers (:func:`~dynaconv.inspection.routers_of`: a
            layer's own name, or that of the block that shares one), or of layers; all by default.
        resolutions: only routers whose input has one of these sizes: 14, or ``(14, 7)``.
        seed: of the shuffles.

    Returns:
        How many routers may be affected (before ``resolutions``, which are known when the network runs).

    What torch.compile has compiled runs uncompiled in the meantime. Only this thread's passes are affected. Deviation
    from the paper's shuffle across images: the other image's weights are those of the network as it is changed.

    Raises:
        ValueError: an unknown name; no such layer; no dynamic layer at all.
    """
    if not callable(how) and how not in INTERVENTIONS:
        raise ValueError(f"how is {how!r}. {suggest(str(how), INTERVENTIONS)}")
    places = routers_of(model)
    if layers is not None:
        patterns = [layers] if isinstance(layers, str) else list(layers)
        names = {place: {place.name, *place.layers} for place in places}
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for known in names.values() for name in known):
                raise ValueError(f"no router is called {pattern!r}. {suggest(pattern, [one.name for one in places])}")
        places = [
            place
            for place in places
            if any(fnmatchcase(name, pattern) for name in names[place] for pattern in patterns)
        ]
    change = _Intervention(how, resolutions, seed)
    handles = [place.router.register_forward_hook(change.replace) for place in places]
    handles.append(unwrapped(model).register_forward_pre_hook(change.begin))
    try:
        with uncompiled():
            yield len(places)
    finally:
        for handle in handles:
            handle.remove()
