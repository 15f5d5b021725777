"""What a list beside the tree of modules holds is neither frozen nor folded: the list would go on with the old one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import dynaconv
from dynaconv.inference.layer import FrozenLayer
from tolerances import assert_close


class Network(nn.Module):
    """Two dynamic convolutions, each with its norm; ``held`` says what a list holds, and is called through."""

    def __init__(self, held: str) -> None:
        super().__init__()
        self.first, self.norm = dynaconv.DynamicConv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.second, self.norm2 = dynaconv.DynamicConv2d(4, 4, 3), nn.BatchNorm2d(4)
        self.held = held
        self.kept = [getattr(self, held)] if held else []

    def forward(self, x: Tensor) -> Tensor:
        for name in ("first", "norm", "second", "norm2"):
            x = self.kept[0](x) if name == self.held else getattr(self, name)(x)
        return x


def trained(held: str) -> Network:
    network = Network(held)
    for _ in range(3):  # statistics that a norm left out, or applied twice, would show
        network(3 + 2 * torch.randn(8, 3, 9, 9))
    return network.eval()


@pytest.mark.parametrize(
    ("held", "frozen_layers", "folded"),
    [
        ("", {"first", "second"}, {"norm", "norm2"}),
        ("first", {"second"}, {"norm2"}),
        ("norm", {"first", "second"}, {"norm2"}),
    ],
)
def test_what_a_list_holds_stays_as_it_is(held: str, frozen_layers: set[str], folded: set[str]) -> None:
    network, x = trained(held), torch.randn(2, 3, 9, 9)
    frozen = dynaconv.freeze(network, input_size=(3, 9, 9))
    report = frozen.freeze_report
    assert (set(report.layers), set(report.norms)) == (frozen_layers, folded)
    assert {name for name, module in frozen.named_modules() if isinstance(module, FrozenLayer)} == frozen_layers
    if held == "first":
        assert report.left == {
            "first": "attribute 'kept' of the network holds it too, and would go on with it as it is"
        }
        assert frozen.kept[0] is frozen.first
    assert_close(frozen(x), network(x), scale=float(network(x).detach().abs().max()) * 10)
