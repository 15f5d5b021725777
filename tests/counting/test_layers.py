"""The package's own layers and routers under the counter: small ones by hand, and whole networks of the papers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dynaconv import layers
from dynaconv.counting import cost
from dynaconv.routing import ScopedRouter, SigmoidRouter, SoftmaxRouter, share_router

timm = pytest.importorskip("timm")

TWINS = [
    ("Conv1d", (8, 12, 3), {"padding": 1}, (8, 15)),
    ("Conv2d", (8, 12, 3), {"stride": 2, "padding": "valid"}, (8, 15, 13)),
    ("Conv2d", (8, 12, 1), {"bias": False}, (8, 15, 13)),
    ("Conv2d", (8, 8, 5), {"groups": 8, "padding": "same", "dilation": 2}, (8, 9, 9)),
    ("Conv2d", (8, 12, 3), {"padding": 1, "padding_mode": "reflect"}, (8, 9, 9)),
    ("Conv3d", (8, 4, 3), {"groups": 2, "padding": 1}, (8, 5, 6, 7)),
    ("ConvTranspose1d", (8, 12, 4), {"stride": 2}, (8, 15)),
    ("ConvTranspose2d", (8, 12, 4), {"stride": 2, "padding": 1, "groups": 2}, (8, 7, 6)),
    ("ConvTranspose3d", (8, 4, 2), {"stride": 2}, (8, 3, 4, 5)),
    ("Linear", (8, 12), {}, (8,)),
]


def multiply_adds_by_torch(model: nn.Module, size: tuple[int, ...]) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.randn(1, *size))
    return counter.get_total_flops() / 2


@pytest.mark.parametrize("family", ["Dynamic", "Cond"])
@pytest.mark.parametrize(("kind", "arguments", "options", "size"), TWINS)
def test_a_dynamic_layer_costs_its_twin_and_the_mixing(
    family: str, kind: str, arguments: tuple[int, ...], options: dict[str, Any], size: tuple[int, ...]
) -> None:
    name = f"{family}{kind}" if family == "Dynamic" else f"Cond{kind}"
    layer = getattr(layers, name)(*arguments, **options, experts=4)
    twin = getattr(nn, kind)(*arguments, **options)
    report = cost(layer, size)
    assert report.kernel == multiply_adds_by_torch(twin, size)
    assert report.mixing == 4 * twin.weight.numel()
    assert report.bias_mixing == (0 if twin.bias is None else 4 * twin.bias.numel())
    assert report.routing == (8 * 4 if family == "Cond" else 8 * 2 + 2 * 4)
    assert report.parameters.experts == 4 * sum(parameter.numel() for parameter in twin.parameters())
    assert report.parameters.routers == report.routing + (4 if family == "Cond" else 0)
    assert report.layers[0].output_shape == tuple(twin(torch.randn(1, *size)).shape)


@pytest.mark.parametrize("strategy", ["auto", "reference", "grouped", "matmul", "unfold", "branches", "single"])
def test_every_strategy_costs_the_same(strategy: str) -> None:
    layer = layers.DynamicConv2d(8, 12, 1, strategy=strategy)
    assert cost(layer, (8, 9, 9)) == cost(layers.DynamicConv2d(8, 12, 1), (8, 9, 9))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        scope = share_router(self, SigmoidRouter(8, 4))
        self.first = layers.CondConv2d(8, 8, 1, experts=4, router=ScopedRouter(scope, 8, 4))
        self.second = layers.CondConv2d(8, 8, 1, experts=4, router=ScopedRouter(scope, 8, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


def test_a_shared_router() -> None:
    report = cost(nn.Sequential(Block(), Block()), (8, 5, 5))
    routing = {row.name: row.routing for row in report.layers if row.routing}
    assert routing == {"0.router": 32, "1.router": 32}
    assert [row.name for row in report.layers] == [
        f"{i}.{name}" for i in (0, 1) for name in ("router", "first", "second")
    ]
    assert report.mixing == 4 * 4 * 64


def replaced(model: nn.Module, chosen: Callable[[str], bool], make: Callable[[nn.Conv2d], nn.Module]) -> nn.Module:
    """``model`` with the convolutions whose names are ``chosen`` made dynamic, in place."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Conv2d) and chosen(name):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, make(module))
    return model


def like(conv: nn.Conv2d) -> dict[str, Any]:
    return {
        "stride": conv.stride,
        "padding": conv.padding,
        "groups": conv.groups,
        "bias": conv.bias is not None,
    }


@pytest.mark.parametrize(("experts", "tf", "parameters"), [(4, 402.10, 13_314_116), (8, 412.80, 24_013_284)])
def test_condconv_efficientnet_b0(experts: int, tf: float, parameters: int) -> None:
    """Yang et al. 2019, Table 1 prints 413 for 8 experts; the parameters are those of the released checkpoints."""
    with torch.device("meta"):
        model = timm.create_model("efficientnet_b0")
        for stage in model.blocks[4:7]:
            for block in stage:
                channels = block.conv_pw.in_channels
                scope = share_router(block, SigmoidRouter(channels, experts))

                def make(conv: nn.Conv2d, scope: Any = scope, channels: int = channels) -> nn.Module:
                    router = ScopedRouter(scope, channels, experts)
                    arguments = (conv.in_channels, conv.out_channels, conv.kernel_size)
                    return layers.CondConv2d(*arguments, **like(conv), experts=experts, router=router)

                replaced(block, lambda name: name in ("conv_pw", "conv_dw", "conv_pwl"), make)
    report = cost(model)
    assert report.under("tf").total / 1e6 == pytest.approx(tf, abs=0.005)
    assert report.parameters.total == parameters
    assert report.kernel == 385_814_752  # the static twin's
    assert sum(row.kind == "SigmoidRouter" for row in report.layers) == 8


@pytest.mark.parametrize(("name", "parameters"), [("mobilenetv2_100", 11.15), ("mobilenetv2_050", 3.94)])
def test_dynamic_mobilenetv2_by_the_papers_formula(name: str, parameters: float) -> None:
    """H*W*Cin + Cin*floor(Cin/4) + floor(Cin/4)*K + K*W over every convolution of the blocks, summed by hand."""
    with torch.device("meta"):
        static = timm.create_model(name).eval()
    formula = 0

    def add(conv: nn.Conv2d, args: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal formula
        channels, squeezed = conv.in_channels, conv.in_channels // 4
        positions = args[0].shape[2] * args[0].shape[3]
        formula += positions * channels + channels * squeezed + squeezed * 4 + 4 * conv.weight.numel()

    hooks = [
        module.register_forward_hook(add)
        for block in static.blocks
        for module in block.modules()
        if isinstance(module, nn.Conv2d)
    ]
    static(torch.empty(1, 3, 224, 224, device="meta"))
    for hook in hooks:
        hook.remove()
    plain = cost(static).total

    def make(conv: nn.Conv2d) -> nn.Module:
        arguments = (conv.in_channels, conv.out_channels, conv.kernel_size)
        return layers.DynamicConv2d(*arguments, **like(conv), experts=4, router=SoftmaxRouter)

    with torch.device("meta"):
        model = replaced(static, lambda name: name.startswith("blocks."), make)
    report = cost(model, rule="dy")
    assert report.total == plain + formula
    assert report.kernel == plain
    assert report.parameters.total / 1e6 == pytest.approx(parameters, abs=0.005)
