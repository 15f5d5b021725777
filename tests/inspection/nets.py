"""Small networks whose routing is known."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dynaconv.layers import CondConv2d, DynamicConv2d
from dynaconv.routing import Router, ScopedRouter, SigmoidRouter, share_router


class FirstPixels(Router):
    """Returns the first K values of the first channel: what an image says is its routing."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0].flatten(1)[:, : self.experts]


class Block(nn.Module):
    """Two layers that share one router."""

    def __init__(self) -> None:
        super().__init__()
        scope = share_router(self, SigmoidRouter(3, 4), name="block")
        self.one = CondConv2d(3, 3, 1, experts=4, router=ScopedRouter(scope, 3, 4))
        self.two = CondConv2d(3, 3, 1, experts=4, router=ScopedRouter(scope, 3, 4))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.two(self.one(x))
        return out


class Net(nn.Module):
    """A layer whose routing its input says, a block with a shared router, a softmax layer."""

    def __init__(self) -> None:
        super().__init__()
        self.last = DynamicConv2d(3, 5, 3, stride=2, experts=2)  # registered first, runs last
        self.first = DynamicConv2d(3, 3, 3, padding=1, experts=3, router=FirstPixels)
        self.block = Block()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.block(self.first(x))).mean(dim=(2, 3))
        return out


def images(batch: int, seed: int = 0) -> Tensor:
    return torch.rand(batch, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
