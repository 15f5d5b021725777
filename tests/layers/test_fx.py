"""torch.fx: dynamic layers and their routers are leaves, and what a scope shares is an edge of the graph."""

from __future__ import annotations

import copy

import pytest
import torch
import torchvision
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import create_feature_extractor

import dynaconv
from dynaconv.layers import DynamicConv2d, DynamicConvTranspose2d, DynamicLayer, DynamicLinear
from dynaconv.routing import Router


class Network(nn.Module):
    """One layer of each kind, with what their forwards take beside the input."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 4, 1), DynamicConv2d(4, 4, 3, stride=2, padding=1, **options)
        self.up, self.head = DynamicConvTranspose2d(4, 4, 3, stride=2, padding=1), DynamicLinear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.up(self.down(x), output_size=(16, 16)).mean((2, 3)))


def dynamic_nodes(graph: fx.GraphModule) -> list[str]:
    calls = [node.target for node in graph.graph.nodes if node.op == "call_module"]
    return [name for name in calls if isinstance(graph.get_submodule(name), DynamicLayer)]


@pytest.mark.parametrize("duplicate", [lambda graph: graph, copy.deepcopy])
def test_a_traced_network_computes_the_same(duplicate) -> None:  # type: ignore[no-untyped-def]
    network, x = Network(), torch.randn(2, 3, 16, 16)
    graph = duplicate(fx.symbolic_trace(network))
    assert dynamic_nodes(graph) == ["down", "up", "head"]
    assert torch.equal(graph(x), network(x))
    graph(x).sum().backward()
    assert all(parameter.grad is not None for parameter in graph.parameters())


class Even(Router):
    """A router of one's own, which fx never looks into: it belongs to its layer."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == self.in_channels
        return x.new_full((x.shape[0], self.experts), 1 / self.experts)


def test_a_router_of_ones_own_belongs_to_its_layer() -> None:
    network, x = Network(router=Even), torch.randn(2, 3, 16, 16)
    assert torch.equal(fx.symbolic_trace(network)(x), network(x))


def test_routing_that_is_given_is_an_edge() -> None:
    class Given(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.router, self.layer = dynaconv.SoftmaxRouter(4, 4), DynamicConv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x, self.router(x))

    network, x = Given(), torch.randn(2, 4, 8, 8)
    graph = fx.symbolic_trace(network)
    assert [node.target for node in graph.graph.nodes if node.op == "call_module"] == ["router", "layer"]
    assert torch.equal(graph(x), network(x))


@pytest.mark.parametrize("share", ["layer", "block"])
def test_a_twin_is_traced_and_gives_its_features(share: str) -> None:
    network = dynaconv.dynamize(torchvision.models.resnet18(), share=share, experts=2, input_size=(3, 32, 32)).eval()
    x = torch.randn(2, 3, 32, 32)
    wanted: dict[str, Tensor] = {}
    hook = network.layer2.register_forward_hook(lambda module, args, output: wanted.update(layer2=output))
    with torch.no_grad():
        output = network(x)
        hook.remove()
        graph = fx.symbolic_trace(network)
        features = create_feature_extractor(network, ["layer2", "layer3.0.conv1"])
        assert torch.equal(graph(x), output)
        found = features(x)
    assert len(dynamic_nodes(graph)) == len(network.dynamize_report.replaced)
    assert torch.equal(found["layer2"], wanted["layer2"])
    assert found["layer3.0.conv1"].shape == (2, 256, 2, 2)


def test_a_shared_router_is_one_node_and_gets_gradients() -> None:
    network = dynaconv.dynamize(torchvision.models.resnet18(), share="block", experts=2, input_size=(3, 32, 32)).eval()
    graph = fx.symbolic_trace(network)
    calls = [node.target for node in graph.graph.nodes if node.op == "call_module"]
    assert calls.count("layer1.0.router") == 1
    graph(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert graph.get_submodule("layer1.0.router").fc.weight.grad.any()


def test_a_graph_becomes_dynamic_too() -> None:
    network = torchvision.models.resnet18().eval()
    graph = fx.symbolic_trace(network)
    x = torch.randn(2, 3, 32, 32)
    twin = dynaconv.dynamize(graph, noise=0.0, input_size=(3, 32, 32))
    assert len(twin.dynamize_report.replaced) == 19
    torch.testing.assert_close(twin(x), network(x))


def test_a_layer_alone_and_a_layer_without_its_block_are_refused() -> None:
    with pytest.raises(TypeError, match=r"torch\.fx cannot look inside DynamicConv2d.*nn\.Sequential\(layer\)"):
        fx.symbolic_trace(DynamicConv2d(3, 4, 1))
    network = dynaconv.dynamize(torchvision.models.resnet18(), share="block", experts=2, input_size=(3, 32, 32))
    with pytest.raises(RuntimeError, match=r"shares the router of 'layer1\.0', which is not running"):
        fx.symbolic_trace(nn.Sequential(network.layer1[0].conv1))
