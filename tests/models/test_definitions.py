"""Parameters and MAdds against the definitions, counted here a second time from shapes alone."""

from __future__ import annotations

import math

import pytest
import timm
from torch import nn

from dynaconv.counting import cost
from dynaconv.layers import DynamicLayer
from dynaconv.models import ZOO
from models.nets import ALL, QUICK, meta

# name: millions of parameters, and of MAdds by the rule of its paper.
DEFINED = {
    "condconv_mobilenetv1_025": (3.67, 44.79),
    "condconv_mobilenetv1_050": (10.36, 160.03),
    "condconv_mobilenetv1_075": (20.08, 345.72),
    "condconv_mobilenetv1_100": (32.83, 601.86),
    "condconv_mobilenetv2_050": (15.63, 112.98),
    "condconv_mobilenetv2_100": (27.81, 328.97),
    "condconv_mnasnet_a1": (14.98, 325.05),
    "condconv_resnet50": (129.87, 4212.30),
    "condconv_efficientnet_b0": (24.01, 412.80),
    "condconv_efficientnet_b0_depth": (39.72, 614.26),
    "dy_mobilenetv2_035": (2.69, 63.33),
    "dy_mobilenetv2_050": (3.94, 103.14),
    "dy_mobilenetv2_075": (7.01, 220.24),
    "dy_mobilenetv2_100": (11.15, 316.79),
    "dy_mobilenetv3_small": (4.78, 70.06),
    "dy_mobilenetv3_small_nose": (4.15, 69.43),
    "dy_resnet10": (19.69, 909.14),
    "dy_resnet18": (44.93, 1859.98),
}
STATIC = {
    "condconv_mobilenetv1_100": "mobilenetv1_100",
    "condconv_mobilenetv2_050": "mobilenetv2_050",
    "condconv_mobilenetv2_100": "mobilenetv2_100",
    "condconv_mnasnet_a1": "semnasnet_100",
    "condconv_resnet50": "resnet50",
    "condconv_efficientnet_b0": "efficientnet_b0",
    "condconv_efficientnet_b0_depth": "efficientnet_b1",
    "dy_mobilenetv2_035": "mobilenetv2_035",
    "dy_mobilenetv2_075": "mobilenetv2_075",
    "dy_resnet18": "resnet18",
}


@pytest.mark.parametrize("name", ALL)
def test_cost_is_the_definitions(name: str) -> None:
    spec, network, twin = ZOO[name], meta(name), meta(name, static=True)
    experts = spec.experts
    layers = [module for module in network.modules() if isinstance(module, DynamicLayer)]
    assert {layer.experts for layer in layers} == {experts}
    weights = sum(math.prod(layer.weight.shape[1:]) for layer in layers)
    biases = sum(layer.bias.shape[1] for layer in layers if layer.bias is not None)
    routing = _routing_weights(network, experts)
    assert _size(network) == _size(twin) + (experts - 1) * (weights + biases) + sum(routing)
    report, static = cost(network), cost(twin)
    assert static.mixing == static.routing == 0
    assert report.kernel == static.total
    assert report.mixing == experts * weights
    # Of a router's parameters the biases (CondConv: one per expert) are no multiply-adds.
    with_bias = experts * len(routing) if spec.method == "condconv" else 0
    assert report.routing == sum(routing) - with_bias
    assert report.total == report.kernel + report.mixing + report.routing
    rule = "tf" if spec.method == "condconv" else "dy"
    assert (round(_size(network) / 1e6, 2), round(report.under(rule).total / 1e6, 2)) == DEFINED[name]


def _routing_weights(network: nn.Module, experts: int) -> list[int]:
    """By the formulas: CondConv ``Cin * n + n`` per scope; DY ``Cin * (Cin // 4) + (Cin // 4) * K`` per layer."""
    found = []
    for module in network.modules():
        router = module._modules.get("router")
        if router is None or not list(router.parameters()):
            continue
        channels = router.in_channels
        if router.hidden is None:
            found.append(channels * experts + experts)
        else:
            found.append(channels * (channels // 4) + channels // 4 * experts)
    return found


def _size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "theirs"),
    [pytest.param(*pair, marks=() if pair[0] in QUICK else pytest.mark.slow) for pair in STATIC.items()],
)
def test_static_twin_is_timms_network(name: str, theirs: str) -> None:
    ours, reference = meta(name, static=True), meta(theirs)
    assert type(ours) is type(reference)
    shapes = {key: tensor.shape for key, tensor in reference.state_dict().items()}
    assert {key: tensor.shape for key, tensor in ours.state_dict().items()} == shapes
    size = (3, 160, 160)
    assert cost(ours, size).total == cost(reference, size).total
    eps = {module.eps for module in reference.modules() if isinstance(module, nn.BatchNorm2d)}
    assert {module.eps for module in ours.modules() if isinstance(module, nn.BatchNorm2d)} == eps


@pytest.mark.parametrize(("theirs", "parameters"), [("cc_b0_4e", 13_314_116), ("cc_b0_8e", 24_013_284)])
def test_parameters_of_timms_condconv(theirs: str, parameters: int) -> None:
    experts = int(theirs[-2])
    assert _size(meta("condconv_efficientnet_b0", experts=experts)) == parameters
    assert _size(meta(f"tf_efficientnet_{theirs}")) == parameters


def test_dynamic_layers_stand_where_the_papers_say() -> None:
    def dynamic(name: str) -> set[str]:
        return {key for key, module in meta(name).named_modules() if isinstance(module, DynamicLayer)}

    v1 = {f"blocks.{s}.{b}.conv_{kind}" for s, n in ((3, 6), (4, 2)) for b in range(n) for kind in ("dw", "pw")}
    assert dynamic("condconv_mobilenetv1_100") == v1 | {"classifier"}
    r50 = {f"layer4.{block}.conv{i}" for block in range(3) for i in (1, 2, 3)}
    assert dynamic("condconv_resnet50") == r50 | {"fc"}
    assert dynamic("dy_resnet10") == {f"layer{group}.0.conv{i}" for group in range(1, 5) for i in (1, 2)}
    v2 = dynamic("dy_mobilenetv2_050")
    assert len(v2) == 2 + 16 * 3
    assert not v2 & {"conv_stem", "conv_head", "classifier"}
    assert dynamic("condconv_mobilenetv2_100") == (v2 - {"blocks.0.0.conv_dw", "blocks.0.0.conv_pw"}) | {
        "conv_head",
        "classifier",
    }
    assert len(dynamic("dy_mobilenetv3_small")) == 2 + 10 * 3
    for name, blocks in (("condconv_mnasnet_a1", 6), ("condconv_efficientnet_b0", 8)):
        assert len(dynamic(name)) == 3 * blocks
        assert {key.split(".")[1] for key in dynamic(name)} == {"4", "5", "6"}


def test_first_version_of_mobilenetv3() -> None:
    twin = meta("dy_mobilenetv3_small", static=True)
    strides = [block.conv_dw.stride[0] for stage in twin.blocks[:-1] for block in stage]
    assert strides == [2, 2, 1, 1, 2, 1, 1, 1, 2, 1, 1]
    assert twin.conv_head.out_channels == 1280
    assert round(cost(twin).total / 1e6, 1) == 66.4
    assert round(_size(twin) / 1e6, 2) == 3.11
    without = meta("dy_mobilenetv3_small_nose", static=True)
    assert not any("se." in key or "conv_reduce" in key for key in without.state_dict())
    assert "mobilenetv3_small_100" in timm.list_models()  # timm's own is the second version
