"""A layer that something beside the tree of modules refers to stays the layer that it is."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dynaconv
from dynaconv.conversion.references import held_beside_tree
from dynaconv.layers import DynamicConv2d
from tolerances import assert_close


class Kept(tuple[nn.Module]):
    """A subclass of a container is a container."""


def remembering(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: layer(x)


# What a network may keep beside ``self.layer``, and how its forward calls it.
KEPT: dict[str, tuple[Callable[[nn.Module], Any], Callable[[Any, Tensor], Tensor]]] = {
    "list": (lambda layer: [layer], lambda kept, x: kept[0](x)),
    "nested": (lambda layer: {"deep": ([Kept((layer,))],)}, lambda kept, x: kept["deep"][0][0][0](x)),
    "dictionary": (lambda layer: {"a": layer}, lambda kept, x: kept["a"](x)),
    "partial": (lambda layer: functools.partial(nn.Module.__call__, layer), lambda kept, x: kept(x)),
    "bound method": (lambda layer: layer.forward, lambda kept, x: kept(x)),
    "function": (remembering, lambda kept, x: kept(x)),
    "hidden module": (lambda layer: [nn.Sequential(layer)], lambda kept, x: kept[0](x)),
}


class Network(nn.Module):
    """Calls one layer by its name, then through something else that holds it."""

    def __init__(self, form: str) -> None:
        super().__init__()
        keep, self.call = KEPT[form]
        self.stem, self.layer, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.kept = keep(self.layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.call(self.kept, self.layer(self.stem(x))))


@pytest.mark.parametrize("include", [None, ["layer", "last"]])
@pytest.mark.parametrize("form", KEPT)
def test_a_layer_that_is_held_elsewhere_is_left_with_the_reason(form: str, include: list[str] | None) -> None:
    network, x = Network(form).eval(), torch.randn(2, 3, 8, 8)
    twin = dynaconv.dynamize(network, noise=0.0, include=include)
    why = {layer.name: layer.reason for layer in twin.dynamize_report.left}
    assert why["layer"] == "attribute 'kept' of the network holds it too, and would go on with the ordinary layer"
    assert isinstance(twin.last, DynamicConv2d)
    assert_close(twin(x), network(x), scale=float(network(x).detach().abs().max()))


def test_a_plain_attribute_and_one_in_a_block() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.Conv2d(4, 4, 1)), nn.Conv2d(4, 4, 1))
    network[1].__dict__["alias"] = network[1][0]
    why = {layer.name: layer.reason for layer in dynaconv.dynamize(network).dynamize_report.left}
    assert why["1.0"].startswith("attribute 'alias' of 1 holds it too")


def test_what_leads_back_into_the_tree_holds_the_block_and_not_its_layers() -> None:
    """``self.blocks_in_order = [self.block1, ...]`` finds the new layers: the blocks themselves stay."""
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.Conv2d(4, 4, 1)))
    network.order = [network[0], network[1]]
    network.order.append(network.order)  # a circle
    assert set(held_beside_tree(network)) == {network[0], network[1]}
    assert isinstance(dynaconv.dynamize(network)[1][0], DynamicConv2d)


def test_a_variable_without_a_value_holds_nothing() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1))

    def late() -> nn.Module:
        return layer

    network.late = late
    assert not held_beside_tree(network)
    layer = network[0]
    assert set(held_beside_tree(network)) == {layer}


def test_a_network_that_ran_with_an_old_weight_norm_is_converted() -> None:
    """It keeps a weight that was computed with gradients, which torch's own deepcopy refuses."""
    with pytest.warns(FutureWarning, match="weight_norm"):
        normed = nn.utils.weight_norm(nn.Conv2d(4, 4, 1))
    network, x = nn.Sequential(nn.Conv2d(3, 4, 1), normed, nn.Conv2d(4, 4, 1)), torch.randn(2, 3, 8, 8)
    network(x).sum().backward()
    twin = dynaconv.dynamize(network, noise=0.0)
    assert "hooks (weight norm" in {layer.name: layer.reason for layer in twin.dynamize_report.left}["1"]
    assert_close(twin(x), network(x), scale=float(network(x).detach().abs().max()))
    twin(x).sum().backward()
    assert twin[1].weight_g.grad is not None
    assert twin[1].weight_g is not network[1].weight_g
    frozen = dynaconv.freeze(twin)
    assert_close(frozen(x), network.eval()(x), scale=float(network(x).detach().abs().max()) * 10)
