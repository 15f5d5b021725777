"""The one-call kernel as an operator: torch.compile keeps it, and it computes what the eager call computes."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dynaconv
from dynaconv import DynamicConv2d, freeze
from dynaconv.inference import FrozenLayer, operator
from dynaconv.inference.one_call import tensors_of
from dynaconv.kernels import cpu as native
from tolerances import assert_close

pytestmark = pytest.mark.skipif(native.why_not() is not None, reason=f"no kernels of our own here: {native.why_not()}")


def picture(channels: int = 4, batch: int = 2) -> Tensor:
    return torch.randn(batch, channels, 9, 7).to(memory_format=torch.channels_last)


def frozen_of(layer: nn.Module, **options: Any) -> FrozenLayer:
    made = freeze(layer, input_size=(layer.in_channels, 9, 7), **options)
    assert isinstance(made, FrozenLayer)
    return made


LAYERS = {
    "dense": lambda: DynamicConv2d(4, 40, 3, padding=1, stride=2, experts=3),
    "depthwise": lambda: DynamicConv2d(33, 33, 3, groups=33, dilation=2, bias=False),
    "pointwise": lambda: dynaconv.CondConv2d(4, 8, 1),
}


@pytest.mark.parametrize("routed", [False, True])
@pytest.mark.parametrize("bank_dtype", [None, "bfloat16", "int8"])
@pytest.mark.parametrize("kind", LAYERS)
def test_opcheck(kind: str, bank_dtype: str | None, routed: bool) -> None:
    layer = frozen_of(LAYERS[kind](), bank_dtype=bank_dtype)
    x, tensors = picture(layer.in_channels), tensors_of(layer)
    routing = torch.rand(2, layer.experts) if routed else None
    geometry = layer.geometry
    arguments = (
        *(x, None if routed else x.sum((2, 3)), routing, *tensors[:4], *((None,) * 4 if routed else tensors[4:])),
        *(layer.kernel_shape, geometry.stride, geometry.padding, geometry.dilation, geometry.groups),
        *(layer.router.softmax, "clamp", 0.0, None),
    )
    y, sums = torch.ops.dynaconv.frozen_layer.default(*arguments)
    with torch.no_grad():
        assert_close(y, layer(x, routing).relu())
    assert_close(sums, y.sum((2, 3)), scale=10)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(torch.ops.dynaconv.frozen_layer.default, arguments, test_utils=tests)


def test_addresses_that_other_tensors_take_over_are_prepared_anew() -> None:
    """What is kept holds addresses; a tensor of another shape or dtype at the same address is another layer."""
    operator._prepared.clear()
    layer, x = frozen_of(LAYERS["pointwise"]()), picture()
    with torch.no_grad():
        expected = operator.run(layer, x, None, layer.geometry)
        layer.bank.mul_(2)
        layer.biases.mul_(2)
        assert_close(operator.run(layer, x, None, layer.geometry), 2 * expected)
        assert len(operator._prepared) == 1
        operator.run(layer, picture()[:, :, :5].contiguous(memory_format=torch.channels_last), None, layer.geometry)
    assert len(operator._prepared) == 2


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        DynamicConv2d(8, 16, 1),
        nn.BatchNorm2d(16),
        dynaconv.CondConv2d(16, 16, 3, groups=16),
        dynaconv.CondConv2d(16, 8, 3, padding="same"),
    ).eval()


def nodes(frozen: nn.Module, x: Tensor) -> list[str]:
    """The names of the calls in the graph that torch.compile makes."""
    seen: list[str] = []

    def note(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        seen.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph.forward

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, while it traces
        assert_close(torch.compile(frozen, backend=note, fullgraph=True)(x), frozen(x))
    return seen


@pytest.mark.parametrize("bank_dtype", [None, "int8"])
def test_a_compiled_network_keeps_the_kernel(bank_dtype: str | None) -> None:
    frozen = freeze(network(), input_size=(3, 12, 12), bank_dtype=bank_dtype)
    x = torch.randn(2, 3, 12, 12).to(memory_format=torch.channels_last)
    assert sum("dynaconv.frozen_layer" in name for name in nodes(frozen, x)) == 3
    torch._dynamo.reset()
    assert not any("dynaconv" in name for name in nodes(frozen.double(), x.double()))
    torch._dynamo.reset()


@pytest.mark.parametrize("strategy", [None, "frozen"])
def test_an_exported_network_has_it_only_if_it_was_asked_for(strategy: str | None) -> None:
    frozen = frozen_of(LAYERS["dense"]())
    frozen.strategy = strategy or "auto"
    x = picture()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch.export's own
        program = torch.export.export(frozen, (x,))
        assert_close(program.module()(x), frozen(x))
    kept = ["frozen_layer" in str(node.target) for node in program.graph.nodes]
    assert any(kept) == (strategy == "frozen")


def test_a_gradient_that_is_needed_goes_by_an_ordinary_strategy() -> None:
    frozen = frozen_of(LAYERS["dense"]())
    x = picture().requires_grad_()
    compiled = torch.compile(frozen, backend="eager")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        actual = torch.autograd.grad(compiled(x).sum(), x)[0]
    assert_close(actual, torch.autograd.grad(frozen(x).sum(), x)[0], scale=10)
    torch._dynamo.reset()
