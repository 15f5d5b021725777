"""The two papers' methods, as settings of one conversion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from dynaconv.errors import suggest
from dynaconv.routing import SigmoidRouter, SoftmaxRouter

RouterFactory = Callable[[int, int], nn.Module]


@dataclass(frozen=True, kw_only=True)
class Method:
    """How many experts, which router, and who shares it."""

    experts: int
    router: RouterFactory
    share: str


METHODS: dict[str, Method] = {
    # Chen et al. 2020, section 5.1: K = 4, attention in every layer.
    "dynamic": Method(experts=4, router=SoftmaxRouter, share="layer"),
    # Yang et al. 2019, section 4.1: 8 experts, routing weights shared by the layers of a block.
    "condconv": Method(experts=8, router=SigmoidRouter, share="block"),
}

SHARES = ("layer", "block")


def find_method(name: str) -> Method:
    """The method of that name; ValueError names the nearest known one."""
    if name not in METHODS:
        raise ValueError(f"method is {name!r}. {suggest(str(name), METHODS)}")
    return METHODS[name]


def check_share(share: str) -> str:
    """Return ``share``; ValueError unless it is ``"layer"`` or ``"block"``."""
    if share not in SHARES:
        raise ValueError(f"share is {share!r}. {suggest(str(share), SHARES)}")
    return share
