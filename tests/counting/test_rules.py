"""The papers' two rules: by hand on small networks, and on the networks whose figures the CondConv paper prints."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from counting.networks import PlainDynamic, PlainRouter, Residual
from dynaconv.counting import RULES, cost


@pytest.mark.parametrize(
    ("layer", "elementwise"),
    [
        pytest.param(nn.Conv2d(4, 6, 1), 6 * 36, id="bias of a convolution"),
        pytest.param(nn.Conv2d(4, 6, 1, bias=False), 0, id="no bias"),
        pytest.param(nn.Sequential(nn.Flatten(), nn.Linear(144, 5)), 5, id="bias of a linear layer"),
        pytest.param(nn.Sequential(nn.Flatten(), nn.Linear(144, 5, bias=False)), 0, id="linear without bias"),
        pytest.param(nn.SiLU(), 144, id="swish: one product"),
        pytest.param(nn.SiLU(inplace=True), 144, id="swish in place"),
        pytest.param(nn.Hardswish(), 3 * 144, id="hard swish: sum, product, quotient"),
        pytest.param(nn.AdaptiveAvgPool2d(1), 144, id="global average pooling"),
        pytest.param(nn.MaxPool2d(3, 2, 1), 9 * 4 * 9, id="max pooling"),
        pytest.param(nn.AvgPool2d(2), 4 * 36, id="average pooling"),
        pytest.param(nn.BatchNorm2d(4), 0, id="batch norm"),
        pytest.param(nn.ReLU6(), 0, id="ReLU6"),
        pytest.param(nn.Sigmoid(), 0, id="sigmoid"),
        pytest.param(nn.Softmax(1), 5 * 144, id="softmax"),
    ],
)
def test_tf_counts_half_of_the_elementwise_operations(layer: nn.Module, elementwise: int) -> None:
    report = cost(layer, (4, 6, 6), rule="tf")
    assert report.elementwise == elementwise / 2
    assert report.kernel == cost(layer, (4, 6, 6)).total


def test_tf_counts_residual_and_squeeze_and_excitation() -> None:
    class SqueezeExcite(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.reduce, self.expand = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            return x * torch.sigmoid(self.expand(torch.relu(self.reduce(x.mean((2, 3), keepdim=True)))))

    assert cost(Residual(8), (8, 5, 5), rule="tf").elementwise == (25 * 8 + 25 * 8) / 2  # bias, residual
    mean, biases, product = 25 * 8, 2 + 8, 25 * 8
    assert cost(SqueezeExcite(), (8, 5, 5), rule="tf").elementwise == (mean + biases + product) / 2


def test_index_arithmetic_is_not_counted() -> None:
    class Positions(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, (torch.arange(x.shape[1], device=x.device) + 1) % x.shape[1]]

    assert cost(Positions(), (8, 5, 5), rule="tf").total == 0


def test_dynamic_layer_under_the_three_rules() -> None:
    """H*W*Cin + Cin*floor(Cin/4) + floor(Cin/4)*K + K*W: the dynamic-convolution paper's formula, literally."""
    model = PlainDynamic(PlainRouter(8, 4), 6, 8, 3, 3)
    kernel, mixing, attention = 49 * 6 * 8 * 9, 4 * 6 * 8 * 9, 8 * 2 + 2 * 4
    plain, dy, tf = (cost(model, (8, 7, 7)).under(rule) for rule in ("madds", "dy", "tf"))
    assert (plain.kernel, plain.mixing, plain.routing, plain.elementwise) == (kernel, mixing, attention, 0)
    assert (dy.kernel, dy.mixing, dy.routing, dy.elementwise) == (kernel, mixing, 49 * 8 + attention, 0)
    softmax = 5 * 4
    assert (tf.kernel, tf.mixing, tf.routing, tf.elementwise) == (kernel, mixing, attention + (49 * 8 + softmax) / 2, 0)


def test_dy_leaves_static_networks_alone() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    assert cost(model, (3, 9, 9), rule="dy").total == cost(model, (3, 9, 9)).total


@pytest.mark.parametrize("rule", list(RULES))
def test_one_run_can_be_weighed_by_every_rule(rule: str) -> None:
    model = nn.Sequential(PlainDynamic(PlainRouter(8, 4), 8, 8, 3, 3), nn.SiLU(), Residual(8), nn.AdaptiveAvgPool2d(1))
    direct = cost(model, (8, 7, 7), rule=rule)
    assert direct.rule == rule
    for other in RULES:
        assert cost(model, (8, 7, 7), rule=other).under(rule) == direct
    with pytest.raises(ValueError, match="Did you mean 'tf'"):
        direct.under("tff")


def test_unknown_rule() -> None:
    with pytest.raises(ValueError, match=r"rule is 'maddz'.*Did you mean 'madds'\?"):
        cost(nn.Linear(2, 2), (2,), rule="maddz")
    with pytest.raises(ValueError, match="Known: dy, madds, tf"):
        cost(nn.Linear(2, 2), (2,), rule="fit")
    assert set(RULES) == {"madds", "tf", "dy"}


@pytest.mark.parametrize(
    ("name", "plain", "tf", "parameters"),
    [
        ("mobilenetv1_100", 568.74, 568.77, 4_231_976),
        ("mobilenetv2_100", 300.77, 300.91, 3_504_872),
        ("resnet50", 4089.18, 4092.90, 25_557_032),
        ("efficientnet_b0", 385.81, 391.34, 5_288_548),
    ],
)
def test_the_condconv_papers_static_networks(name: str, plain: float, tf: float, parameters: int) -> None:
    """391, 4093, 301 are Table 1's figures; 567 stands there for MobileNetV1, where the exact count is 568.8."""
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model(name)
    report = cost(model)
    assert report.total / 1e6 == pytest.approx(plain, abs=0.005)
    assert report.under("tf").total / 1e6 == pytest.approx(tf, abs=0.005)
    assert report.parameters.total == parameters
