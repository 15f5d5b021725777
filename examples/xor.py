"""XOR with a single dynamic perceptron (Chen et al. 2020, appendix A.3).

One static linear layer cannot compute XOR: the four points are not linearly separable. One dynamic linear layer can,
because its weights depend on its input. First the paper's own weights, then weights found by gradient descent.

    python examples/xor.py
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dynaconv import DynamicLinear, Router, SoftmaxRouter

POINTS = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
XOR = torch.tensor([0.0, 1.0, 1.0, 0.0])


class PaperRouter(Router):
    """The attention of A.3: ``pi_1(x) = x_2``, ``pi_2(x) = 1 - x_2``."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x[:, 1], 1 - x[:, 1]], dim=1)


def paper_layer() -> DynamicLinear:
    """The dynamic perceptron of equation 5, whose first output is XOR (the second is zero).

    The paper writes ``W^T x``, a column for every output; torch keeps a row for every output, so the experts here are
    the transposes, which for these symmetric matrices are the same.
    """
    layer = DynamicLinear(2, 2, experts=2, router=PaperRouter)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[[-1.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]]]))
        layer.bias.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    return layer


def learned_layer(seed: int = 0, steps: int = 500) -> DynamicLinear:
    """One dynamic linear layer with two experts and a softmax router, trained on the four points."""
    torch.manual_seed(seed)
    layer = DynamicLinear(
        2,
        1,
        experts=2,
        router=lambda inputs, experts: SoftmaxRouter(inputs, experts, temperature=1.0, hidden=0, bias=True),
    )
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(steps):
        loss = nn.functional.mse_loss(layer(POINTS)[:, 0], XOR)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return layer


@torch.no_grad()
def table(title: str, layer: DynamicLinear) -> str:
    """The truth table of the layer's first output, with the routing weights of every point."""
    lines = [title, " x1  x2 | routing weights |      y | XOR"]
    outputs = layer(POINTS)[:, 0].round(decimals=3) + 0.0  # no minus before a zero
    for point, y, routing, wanted in zip(POINTS, outputs, layer.router(POINTS), XOR, strict=True):
        weights = ", ".join(f"{weight:5.3f}" for weight in routing.tolist())
        lines.append(f"  {point[0]:.0f}   {point[1]:.0f} |  {weights}   | {y:6.3f} |  {wanted:.0f}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table("The paper's dynamic perceptron (equation 5):", paper_layer()))
    print()
    print(table("Learned by gradient descent:", learned_layer()))
