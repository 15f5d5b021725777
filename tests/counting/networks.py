"""Small networks for the cost tests, among them a dynamic layer made of nothing but the counter's protocol."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dynaconv.counting import LayerCount, layer_count


class PlainRouter(nn.Module):
    """GAP, a hidden layer, softmax: routing weights as in the dynamic-convolution paper."""

    is_router = True

    def __init__(self, channels: int, experts: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(channels, channels // 4, bias=False)
        self.fc = nn.Linear(channels // 4, experts, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.fc(F.relu(self.hidden(x.mean((2, 3))))), dim=1)


class PlainDynamic(nn.Module):
    """A dynamic convolution for batch 1 that knows its cost; ``strategy`` changes the operations, not the result."""

    def __init__(self, router: nn.Module | None, *kernel: int, experts: int = 4, strategy: str = "mixed") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(experts, *kernel))
        self.router = router
        self.strategy = strategy

    def forward(self, x: Tensor, routing: Tensor | None = None) -> Tensor:
        routing = self.router(x) if routing is None else routing
        if self.strategy == "mixed":
            return F.conv2d(x, torch.einsum("bk,koihw->oihw", routing, self.weight), padding="same")
        if self.strategy == "branches":
            return sum(
                routing[:, k, None, None, None] * F.conv2d(x, w, padding="same") for k, w in enumerate(self.weight)
            )
        torch.fft.rfft(self.weight)  # no rule counts it: were it looked at, it would be an error
        return F.conv2d(x, self.weight[0], padding="same")

    def count(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> LayerCount:
        return layer_count(self.weight.shape[1:], len(self.weight), input_shape, output_shape, dims=2)


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)
