"""What C writes is float32, whatever torch's default dtype is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from dynaconv import DynamicConv2d, freeze
from dynaconv.inference.layer import FrozenLayer
from dynaconv.kernels import cpu
from tolerances import assert_close

pytestmark = pytest.mark.skipif(cpu.why_not() is not None, reason=f"no kernels of our own here: {cpu.why_not()}")


@pytest.fixture(params=[torch.bfloat16, torch.float16, torch.float64], ids=str)
def default(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    yield request.param
    torch.set_default_dtype(torch.float32)


def outputs(layer: nn.Module, x: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    x = x.clone(memory_format=torch.channels_last).requires_grad_()
    y = layer(x)
    return [y, *torch.autograd.grad(y, [x, *leaves], torch.ones_like(y))]


@pytest.mark.parametrize("strategy", ["stencil", "tiled", "experts"])
def test_a_layer_forward_and_backward(strategy: str, default: torch.dtype) -> None:
    groups = 33 if strategy == "stencil" else 1
    layer = DynamicConv2d(33, 33, 3, padding=1, stride=2, groups=groups, strategy=strategy)
    x, leaves = torch.randn(5, 33, 16, 15), list(layer.parameters())
    expected = outputs(layer, x, leaves)
    torch.set_default_dtype(default)
    for found, wanted in zip(outputs(layer, x, leaves), expected, strict=True):
        assert found.dtype == torch.float32
        assert_close(found, wanted)


@pytest.mark.parametrize("bank_dtype", [None, "bfloat16", "int8"])
@pytest.mark.parametrize("batch", [1, 12])  # with the router in the layer's own call, and without
def test_a_frozen_network(bank_dtype: str | None, batch: int, default: torch.dtype) -> None:
    layers = DynamicConv2d(8, 20, 3), nn.ReLU(), DynamicConv2d(20, 20, 3, groups=20), DynamicConv2d(20, 4, 1)
    frozen = freeze(nn.Sequential(*layers).eval(), input_size=(8, 9, 9), bank_dtype=bank_dtype)
    assert any(isinstance(module, FrozenLayer) for module in frozen.modules())
    x = torch.randn(batch, 8, 9, 9).to(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = frozen(x)
        torch.set_default_dtype(default)
        found = frozen(x)
    assert found.dtype == torch.float32
    assert_close(found, expected)
