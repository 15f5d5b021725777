"""Hooks are on the frozen form too, or what they watch stays; what cannot be frozen is named with the reason."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import dynaconv
from dynaconv import DynamicConv2d, freeze
from dynaconv.inference import FrozenLayer
from dynaconv.inference.router import FrozenRouter
from tolerances import assert_close

LAYOUTS = (torch.contiguous_format, torch.channels_last)


def network() -> nn.Sequential:
    made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), DynamicConv2d(4, 4, 3), nn.BatchNorm2d(4)).eval()
    for norm in (made[1], made[3]):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.5, 0.5)
    return made


def picture(layout: torch.memory_format = torch.contiguous_format) -> Tensor:
    return torch.randn(2, 3, 8, 8).to(memory_format=layout)


def hook(module: nn.Module, kind: str, seen: list[Any]) -> None:
    if kind == "forward":
        module.register_forward_hook(lambda module, args, output: seen.append(output))
    elif kind == "forward with kwargs":
        module.register_forward_hook(lambda module, args, kwargs, output: seen.append(output), with_kwargs=True)
    elif kind == "pre":
        module.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    else:
        module.register_full_backward_hook(lambda module, inputs, outputs: seen.append(outputs[0]))


def run(model: nn.Module, x: Tensor, kind: str) -> Tensor:
    if kind == "backward":
        x = x.requires_grad_()
        y: Tensor = model(x)
        y.sum().backward()
        return y.detach()
    with torch.no_grad():
        result: Tensor = model(x)
    return result


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["forward", "forward with kwargs", "pre", "backward"])
@pytest.mark.parametrize("place", ["0", "1", "2", "2.router", "2.router.fc", "3"])
def test_hooks_see_what_they_saw(place: str, kind: str, layout: torch.memory_format) -> None:
    twin, seen = network(), []
    hook(twin.get_submodule(place), kind, seen)
    x = picture(layout)
    expected = run(twin, x.clone(), kind)
    wanted = list(seen)
    assert wanted
    frozen = freeze(twin, input_size=(3, 8, 8))
    assert isinstance(frozen[2], FrozenLayer)
    seen.clear()
    assert_close(run(frozen, x.clone(), kind), expected)
    assert len(seen) == len(wanted)
    for have, want in zip(seen, wanted, strict=True):
        assert_close(have, want, scale=4)


def test_a_hook_that_changes_the_output_still_does() -> None:
    twin = network()
    twin[2].register_forward_hook(lambda module, args, output: output * 3)
    x = picture()
    with torch.no_grad():
        assert_close(freeze(twin, input_size=(3, 8, 8))(x), twin(x), scale=3)


def test_without_hooks_norms_are_folded_and_routers_frozen() -> None:
    frozen = freeze(network(), input_size=(3, 8, 8))
    assert frozen.freeze_report.norms == {"1": "0", "3": "2"}
    assert isinstance(frozen[2].router, FrozenRouter)


def test_a_watched_activation_inside_a_norm_stays() -> None:
    norm, seen = timm.layers.BatchNormAct2d(4), []
    norm.act.register_forward_hook(lambda *args: seen.append(1))
    frozen = freeze(nn.Sequential(DynamicConv2d(3, 4, 3), norm).eval(), input_size=(3, 8, 8))
    seen.clear()
    frozen(picture())
    assert seen == [1]


class _Scaled(DynamicConv2d):
    def forward(self, x: Tensor, routing: Tensor | None = None) -> Tensor:
        return 2 * super().forward(x, routing)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lambda: dynaconv.DynamicConvTranspose2d(3, 4, 2), "transposed"),
        (lambda: _Scaled(3, 4, 2), "a forward of its own"),
        (lambda: nn.utils.parametrizations.weight_norm(DynamicConv2d(3, 4, 2)), "computed from other parameters"),
    ],
)
def test_layers_that_stay_are_named_with_the_reason(layer: Any, reason: str) -> None:
    twin = nn.Sequential(layer(), nn.BatchNorm2d(4), DynamicConv2d(4, 4, 1)).eval()
    twin[1].running_mean.fill_(0.5)
    frozen = freeze(twin, input_size=(3, 8, 8))
    report = frozen.freeze_report
    assert report.layers == ("2",)
    assert list(report.left) == ["0"]
    assert reason in report.left["0"]
    assert "1 left as they were" in str(report)
    with torch.no_grad():
        x = picture()
        assert_close(frozen(x), twin(x))
