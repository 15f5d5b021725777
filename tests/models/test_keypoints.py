"""Keypoint networks: costs by the definitions, shapes, which part is dynamic, gradients."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

from dynaconv.counting import cost
from dynaconv.layers import DynamicLayer
from dynaconv.models.keypoints import KeypointNetwork
from models.nets import alive, meta

NAMES = [
    f"keypoints_{head}_{prefix}{backbone}"
    for head in "ab"
    for prefix in ("", "dy_")
    for backbone in ("resnet18", "mobilenetv2_100", "mobilenetv2_050", "mobilenetv3_small")
]

# (head, channels of the backbone): plain MAdds and parameters of the head in millions. Type B counts the last 1x1
# convolution (6.69M) too; without it the sum of Table 9's blocks is 720.96 for 1280 channels and 682.98 for 576.
HEADS = {
    ("keypoints_a_resnet18", 512): (1120.67, 4.20),
    ("keypoints_a_mobilenetv2_100", 1280): (1271.66, 7.35),
    ("keypoints_a_mobilenetv3_small", 576): (1133.25, 4.46),
    ("keypoints_b_mobilenetv2_050", 1280): (727.65, 1.21),
    ("keypoints_b_mobilenetv3_small", 576): (689.66, 1.01),
}


@pytest.mark.parametrize(("name", "channels"), HEADS)
def test_heads_cost_what_the_definitions_say(name: str, channels: int) -> None:
    head = meta(name).head
    report = cost(head, (channels, 8, 6))
    assert (round(report.total / 1e6, 2), round(report.parameters.total / 1e6, 2)) == HEADS[name, channels]


@pytest.mark.parametrize(("name", "parameters"), [("mobilenetv2_100", 6.32), ("mobilenetv3_small", 4.87)])
def test_dynamic_heads_have_the_published_parameters(name: str, parameters: float) -> None:
    head = meta(f"keypoints_b_dy_{name}").head
    assert round(sum(each.numel() for each in head.parameters()) / 1e6, 2) == parameters
    layers = [module for module in head.modules() if isinstance(module, DynamicLayer)]
    assert len(layers) == 2 + 3 * 3
    assert {layer.experts for layer in layers} == {4}
    assert type(head.final) is nn.Conv2d


def test_type_b_as_the_table_sums_it() -> None:
    report = cost(meta("keypoints_b_mobilenetv2_100").head, (1280, 8, 6))
    last = next(layer for layer in report.layers if layer.name == "final")
    assert round((report.total - last.kernel) / 1e6, 2) == 720.96


@pytest.mark.parametrize("name", NAMES)
def test_names_shapes_and_dynamic_parts(name: str) -> None:
    network = meta(name, num_keypoints=5)
    assert isinstance(network, KeypointNetwork)
    assert network(torch.empty(2, 3, 256, 192, device="meta")).shape == (2, 5, 64, 48)
    assert timm.get_pretrained_cfg(name).input_size == (3, 256, 192)

    def dynamic(part: nn.Module) -> bool:
        return any(isinstance(module, DynamicLayer) for module in part.modules())

    assert dynamic(network.backbone) == ("_dy_" in name)
    assert dynamic(network.head) == name.startswith("keypoints_b_dy_")


@pytest.mark.parametrize("backbone", [False, True])
@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("kind", ["a", "b"])
def test_backbone_and_head_are_dynamic_separately(kind: str, backbone: bool, head: bool) -> None:
    network = meta(f"keypoints_{kind}_mobilenetv3_small", dynamic_backbone=backbone, dynamic_head=head, experts=2)
    layers = [[m for m in part.modules() if isinstance(m, DynamicLayer)] for part in (network.backbone, network.head)]
    assert [bool(each) for each in layers] == [backbone, head]
    assert {layer.experts for each in layers for layer in each} <= {2}


@pytest.mark.parametrize("name", ["keypoints_b_dy_mobilenetv3_small", "keypoints_a_dy_mobilenetv2_050"])
def test_gradients_and_examples_apart(name: str) -> None:
    network = alive(timm.create_model(name, experts=2, num_keypoints=3, dynamic_head=True))
    x = torch.randn(2, 3, 64, 64)
    exact = network.eval().double()
    with torch.no_grad():
        assert torch.allclose(exact(x.double())[1:], exact(x[1:].double()), atol=1e-9)
    network.float().train()(x).square().sum().backward()
    assert [key for key, parameter in network.named_parameters() if parameter.grad is None] == []
    assert network.head.final.weight.grad.isfinite().all()


def test_temperature_and_its_schedule_reach_both_parts() -> None:
    network = meta("keypoints_b_dy_mobilenetv3_small", temperature=7)
    temperatures = [module.temperature for module in network.modules() if hasattr(module, "temperature")]
    assert len(temperatures) == 32 + 11
    real = timm.create_model("keypoints_b_mobilenetv3_small", dynamic_head=True, experts=2, temperature=7)
    assert {m.temperature.item() for m in real.modules() if hasattr(m, "temperature")} == {7.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_keypoints": 0}, "num_keypoints is 0; expected a whole number of at least 1"),
        ({"dynamic_head": "yes"}, "dynamic_head is 'yes'"),
        ({"experts": 0}, "experts is 0"),
        ({"temperature": 0.0}, "temperature is 0.0"),
    ],
)
def test_impossible_values_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        meta("keypoints_b_dy_mobilenetv3_small", **arguments)
