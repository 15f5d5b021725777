"""The choices that the papers' tables vary."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from dynaconv.layers import DynamicLayer
from dynaconv.models import ROUTINGS
from dynaconv.routing import ScopedRouter, SoftmaxRouter
from models.nets import alive, assert_equal, images, meta

V1 = "condconv_mobilenetv1_025"


def routing_weights(network: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The routing weights that every dynamic layer mixed with, in one pass."""
    found: dict[str, Tensor] = {}

    def note(name: str) -> Any:
        return lambda router, args, output: found.__setitem__(name, output.detach())

    hooks = [
        module.router.register_forward_hook(note(name))
        for name, module in network.named_modules()
        if isinstance(module, DynamicLayer)
    ]
    with torch.no_grad():
        network(x)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("routing", ROUTINGS)
def test_every_routing_trains_and_keeps_examples_apart(routing: str) -> None:
    network = alive(timm.create_model(V1, experts=3, num_classes=5, routing=routing))
    x = images(3)
    with torch.no_grad():
        together = network(x)
        assert_equal(network(x[1:2]), together[1:2])
    network.train()(x).square().sum().backward()
    assert [key for key, parameter in network.named_parameters() if parameter.grad is None] == []
    weights = routing_weights(network, x)
    assert len(weights) == 17
    assert all(weight.shape == (3, 3) for weight in weights.values())
    assert all(weights[f"blocks.4.{b}.conv_dw"].equal(weights[f"blocks.4.{b}.conv_pw"]) for b in (0, 1))


def distinct(network: nn.Module) -> list[int]:
    """For each of the nine scopes of MobileNetV1 the number of the first one with equal routing weights."""
    weights = routing_weights(network, images(4))
    scopes = [f"blocks.3.{b}.conv_dw" for b in range(6)] + ["blocks.4.0.conv_dw", "blocks.4.1.conv_dw", "classifier"]
    return [next(j for j in range(9) if weights[scopes[i]].equal(weights[scopes[j]])) for i in range(9)]


def test_who_shares_with_whom() -> None:
    assert distinct(timm.create_model(V1, experts=3)) == list(range(9))
    assert distinct(timm.create_model(V1, experts=3, routing="single")) == [0] * 9
    assert distinct(timm.create_model(V1, experts=3, routing="partially_shared")) == [0, 0, 2, 2, 4, 4, 6, 6, 8]
    assert distinct(timm.create_model(V1, experts=3, routing="hierarchical")) == list(range(9))


def test_hierarchical_reads_the_scope_before() -> None:
    network = timm.create_model(V1, experts=3, routing="hierarchical").eval()
    second = network.blocks[3][1].router
    assert second.fc.weight.shape == (3, 128 + 3)
    x = images(2)
    with torch.no_grad():
        second.fc.weight[:, :128] = 0  # only the routing weights of the scope before are left
        second.fc.weight[:, 128:] = torch.eye(3)
        second.fc.bias.zero_()
    weights = routing_weights(network, x)
    assert torch.allclose(weights["blocks.3.1.conv_dw"], weights["blocks.3.0.conv_dw"].sigmoid(), atol=1e-6)
    assert network.blocks[3][0].router.fc.weight.shape == (3, 64)


@pytest.mark.parametrize("routing", ["single", "partially_shared", "hierarchical"])
def test_sharing_works_from_the_stem_on(routing: str) -> None:
    network = alive(timm.create_model(V1, experts=2, begin=1, num_classes=5, routing=routing))
    assert isinstance(network.conv_stem, DynamicLayer)
    weights = routing_weights(network, images(2))
    same = weights["conv_stem"].equal(weights["blocks.0.0.conv_dw"])
    assert same == (routing != "hierarchical")
    assert weights["conv_stem"].equal(weights["classifier"]) == (routing == "single")
    features = timm.create_model(V1, experts=2, begin=1, routing=routing, features_only=True).eval()
    features.load_state_dict(network.state_dict(), strict=False)
    x = images(2)
    with torch.no_grad():
        for one, other in zip(features(x), network.forward_intermediates(x, intermediates_only=True), strict=True):
            assert_equal(one, other)


@pytest.mark.parametrize(
    ("routing", "width"), [("hidden_small", 8), ("hidden_medium", 64), ("hidden_large", 512), ("softmax", None)]
)
def test_routers(routing: str, width: int | None) -> None:
    router = meta(V1, routing=routing).blocks[3][0].router
    assert (router.hidden.out_features if width else router.hidden) == width
    assert router.fc.bias is not None
    assert isinstance(router, SoftmaxRouter) == (routing == "softmax")


def test_softmax_and_temperature() -> None:
    dynamic = timm.create_model("dy_mobilenetv2_035")
    assert dynamic.blocks[1][0].conv_pw.router.temperature.item() == 30
    assert dynamic.blocks[1][0].conv_pw.router.fc.bias is None
    cold = timm.create_model("dy_mobilenetv2_035", temperature=5)
    assert cold.blocks[1][0].conv_pw.router.temperature.item() == 5
    assert timm.create_model(V1, routing="softmax").classifier.router.temperature.item() == 1


@pytest.mark.parametrize(
    ("begin", "first"),
    [(1, "conv_stem"), (2, "blocks.0.0.conv_dw"), (7, "blocks.3.0.conv_dw"), (14, "blocks.4.1.conv_dw"), (15, None)],
)
def test_begin(begin: int, first: str | None) -> None:
    names = [key for key, module in meta(V1, begin=begin).named_modules() if isinstance(module, DynamicLayer)]
    assert names[0] == (first or "classifier")
    assert names[-1] == "classifier"
    assert len(names) == {1: 28, 2: 27, 7: 17, 14: 3, 15: 1}[begin]


@pytest.mark.parametrize(
    ("convs", "count"), [("C1", 16), ("C2", 17), (["C3"], 17), ("C1 C3", 33), ("C2,C3", 34), (("C1", "C2"), 33)]
)
def test_convolutions_of_a_block(convs: Any, count: int) -> None:
    network = meta("dy_mobilenetv2_050", convs=convs)
    names = [key for key, module in network.named_modules() if isinstance(module, DynamicLayer)]
    assert len(names) == count
    endings = {"C1": {"conv_pw"}, "C2": {"conv_dw"}, "C3": {"conv_pwl", "conv_pw"}}
    wanted = set().union(*(endings[place] for place in endings if place in str(convs)))
    assert {name.rpartition(".")[2] for name in names} <= wanted


def test_a_block_of_which_the_first_convolution_is_static() -> None:
    network = timm.create_model("condconv_mnasnet_a1", experts=2, convs="C3", num_classes=3)
    block = network.blocks[4][0]
    assert not isinstance(block.conv_pw, DynamicLayer)
    assert isinstance(block.conv_pwl.router, ScopedRouter)
    assert block.router.in_channels == 80
    assert network(images(1)).shape == (1, 3)


@pytest.mark.parametrize(("depth", "blocks"), [(1.0, 17), (0.7, 12), (0.5, 11), (0.01, 7), (2.0, 34)])
def test_depth(depth: float, blocks: int) -> None:
    network = meta("dy_mobilenetv2_035", depth_multiplier=depth)
    assert sum(len(stage) for stage in network.blocks) == blocks


def test_depth_of_efficientnet_goes_up_and_of_resnet_too() -> None:
    depth = meta("condconv_efficientnet_b0", depth_multiplier=1.1)
    assert [len(stage) for stage in depth.blocks] == [2, 3, 3, 4, 4, 5, 2]
    keys = meta("condconv_efficientnet_b0_depth").state_dict().keys()
    assert depth.state_dict().keys() == keys
    assert [len(meta("dy_resnet18", depth_multiplier=0.5).get_submodule(f"layer{i}")) for i in range(1, 5)] == [1] * 4


def test_squeeze_and_excitation_on_and_off() -> None:
    with_se, without = meta("dy_mobilenetv3_small"), meta("dy_mobilenetv3_small_nose")
    assert meta("dy_mobilenetv3_small", se=False).state_dict().keys() == without.state_dict().keys()
    assert meta("dy_mobilenetv3_small_nose", se=True).state_dict().keys() == with_se.state_dict().keys()
    assert not any(".se." in key for key in meta("condconv_efficientnet_b0", se=False).state_dict())


def test_dropout() -> None:
    assert [meta(f"dy_mobilenetv2_{width}").drop_rate for width in ("035", "050", "075", "100")] == [0, 0, 0.1, 0.2]
    assert meta("dy_resnet18").drop_rate == 0.1
    assert meta("dy_resnet18", drop_rate=0.5).drop_rate == 0.5
    network = timm.create_model(V1, experts=2, expert_dropout=0.4)
    assert network.blocks[3][0].router.expert_dropout == 0.4


def test_static_head_and_classifier() -> None:
    network = meta("condconv_mobilenetv2_050", dynamic_head=False, dynamic_classifier=False)
    assert type(network.conv_head) is nn.Conv2d
    assert type(network.classifier) is nn.Linear
    assert isinstance(meta("dy_resnet10", dynamic_classifier=True).fc, DynamicLayer)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (V1, {"experts": 0}, "experts is 0; expected a whole number of at least 1"),
        (V1, {"experts": 2.5}, "experts is 2.5"),
        (V1, {"routing": "sofmax"}, "Did you mean 'softmax'"),
        (V1, {"routing": "hidden"}, "hidden_"),
        (V1, {"begin": 0}, r"begin is 0; expected 1 \(the stem\) to 15 \(classifier\)"),
        (V1, {"begin": 16}, "begin is 16"),
        (V1, {"begin": "7"}, "expected the number of a layer"),
        (V1, {"begin": 15, "dynamic_classifier": False}, "nothing is dynamic"),
        (V1, {"convs": "C4"}, "Known: C1, C2, C3"),
        (V1, {"convs": []}, "convs is empty"),
        (V1, {"temperature": 3.0}, "temperature is for routing='softmax'"),
        (V1, {"routing": "softmax", "temperature": 0.0}, "temperature is 0.0"),
        (V1, {"expert_dropout": 1.0}, "expert_dropout is 1.0"),
        (V1, {"depth_multiplier": 0}, "depth_multiplier is 0"),
        (V1, {"depth_multiplier": "half"}, "depth_multiplier is 'half'"),
        (V1, {"se": True}, "no squeeze-and-excitation"),
        (V1, {"static": "yes"}, "static is 'yes'"),
        ("dy_resnet10", {"convs": "C3"}, "the blocks of this network have C1, C2"),
        (V1, {"static": True, "routing": "nothing"}, "routing is 'nothing'"),
    ],
)
def test_impossible_values_are_named(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        meta(name, **arguments)


@pytest.mark.parametrize(
    ("word", "near"), [("rooting", "routing"), ("expert", "experts"), ("num_class", "num_classes")]
)
def test_unknown_arguments_are_named(word: str, near: str) -> None:
    with pytest.raises(TypeError, match=f"has no argument '{word}'.*'{near}'"):
        meta("dy_resnet10", **{word: 3})


def test_a_shared_classifier_that_is_gone_cannot_come_back() -> None:
    network = timm.create_model(V1, experts=2, routing="single")
    network.reset_classifier(0)
    with pytest.raises(ValueError, match="build the network with num_classes"):
        network.reset_classifier(3)
