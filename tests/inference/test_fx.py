"""torch.fx: frozen layers and their routers are leaves, as those that they were made of."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import create_feature_extractor

import dynaconv
from dynaconv import DynamicConv2d, freeze
from dynaconv.inference import FrozenLayer
from tolerances import assert_close


def frozen_resnet(share: str) -> nn.Module:
    network = dynaconv.dynamize(torchvision.models.resnet18(), share=share, experts=2, input_size=(3, 32, 32)).eval()
    return freeze(network, input_size=(3, 32, 32))


@pytest.mark.parametrize("share", ["layer", "block"])
def test_a_frozen_network_is_traced_and_gives_its_features(share: str) -> None:
    frozen, x = frozen_resnet(share), torch.randn(2, 3, 32, 32)
    wanted: dict[str, Tensor] = {}
    hook = frozen.layer2.register_forward_hook(lambda module, args, output: wanted.update(layer2=output))
    with torch.no_grad():
        output = frozen(x)
        hook.remove()
        graph = fx.symbolic_trace(frozen)
        assert_close(graph(x), output)
        found = create_feature_extractor(frozen, ["layer2", "layer3.0.conv1"])(x)
    calls = [node.target for node in graph.graph.nodes if node.op == "call_module"]
    layers = [name for name in calls if isinstance(graph.get_submodule(name), FrozenLayer)]
    assert tuple(layers) == frozen.freeze_report.layers
    assert calls.count("layer1.0.router") == (share == "block")
    assert_close(found["layer2"], wanted["layer2"])
    assert found["layer3.0.conv1"].shape == (2, 256, 2, 2)


def test_routing_that_is_given_is_an_edge() -> None:
    class Given(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.router, self.layer = dynaconv.SoftmaxRouter(4, 4), DynamicConv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x, self.router(x))

    frozen, x = freeze(Given(), input_size=(4, 8, 8)), torch.randn(2, 4, 8, 8)
    graph = fx.symbolic_trace(frozen)
    assert [node.target for node in graph.graph.nodes if node.op == "call_module"] == ["router", "layer"]
    assert_close(graph(x), frozen(x))


def test_a_layer_alone_is_refused() -> None:
    frozen = freeze(DynamicConv2d(3, 4, 1), input_size=(3, 8, 8))
    with pytest.raises(TypeError, match=r"torch\.fx cannot look inside FrozenLayer.*nn\.Sequential\(layer\)"):
        fx.symbolic_trace(frozen)
