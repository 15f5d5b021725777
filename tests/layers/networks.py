"""A small network with every kind of layer, and a block whose layers share one router."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dynaconv import CondConv2d, CondLinear, DynamicConv2d, DynamicConvTranspose2d, SigmoidRouter, share_router
from dynaconv.routing import ScopedRouter


class SharedBlock(nn.Module):
    """An inverted residual whose three convolutions share one router."""

    def __init__(self, channels: int = 8, experts: int = 3) -> None:
        super().__init__()
        scope = share_router(self, SigmoidRouter(channels, experts), name="shared")
        wide = 2 * channels
        view = lambda width: {"experts": experts, "router": ScopedRouter(scope, width, experts)}  # noqa: E731
        self.expand = DynamicConv2d(channels, wide, 1, **view(channels))
        self.depthwise = DynamicConv2d(wide, wide, 3, padding=1, groups=wide, **view(wide))
        self.project = DynamicConv2d(wide, channels, 1, **view(wide))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.project(torch.relu(self.depthwise(torch.relu(self.expand(x)))))


class Small(nn.Module):
    """Stem, shared block, strided convolution, transposed convolution, classifier: all dynamic but the norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = DynamicConv2d(3, 8, 3, padding=1)
        self.block = SharedBlock()
        self.down = CondConv2d(8, 8, 3, stride=2, padding="same", groups=2)
        self.up = DynamicConvTranspose2d(8, 4, 2, stride=2)
        self.head = CondLinear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.down(self.block(x)))
        return self.head(self.up(x).mean(dim=(2, 3)))
