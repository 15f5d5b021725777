"""A user's mistakes: the message names what came, what was expected and what to do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from dynaconv import CondConv2d, DynamicConv2d, DynamicConvTranspose2d, DynamicLinear, SigmoidRouter


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"experts": 0}, ValueError, "experts is 0; expected a whole number of at least 1"),
        ({"experts": -3}, ValueError, "experts is -3; expected"),
        ({"experts": 2.0}, ValueError, "experts is 2.0; expected a whole number"),
        ({"experts": True}, ValueError, "experts is True; expected a whole number"),
        ({"groups": 4}, ValueError, "in_channels is 6, which groups=4 does not divide"),
        ({"groups": 3}, ValueError, "out_channels is 4, which groups=3 does not divide"),
        ({"groups": 0}, ValueError, "groups is 0; expected"),
        ({"in_channels": 0}, ValueError, "in_channels is 0; expected a whole number of at least 1"),
        ({"out_channels": -1}, ValueError, "out_channels is -1; expected"),
        ({"kernel_size": 0}, ValueError, "kernel_size is 0; expected a whole number of at least 1, or 2 of them"),
        ({"kernel_size": (3, 3, 3)}, ValueError, r"kernel_size is \(3, 3, 3\); expected"),
        ({"strategy": "groupd"}, ValueError, r"strategy is 'groupd'\. Did you mean 'grouped'"),
        ({"router": "softmx"}, ValueError, r"router is 'softmx'.*Did you mean 'softmax'"),
        ({"router": 3}, TypeError, r"router is 3; expected"),
        ({"router": lambda c, k: None}, TypeError, r"router factory returned NoneType; expected a torch\.nn\.Module"),
        (
            {"router": SigmoidRouter(6, 3)},
            ValueError,
            "router returns 3 routing weights and the layer has 4 experts; make both equal",
        ),
    ],
)
@pytest.mark.parametrize("kind", [DynamicConv2d, DynamicConvTranspose2d])
def test_is_named_at_construction(kind: Any, arguments: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        kind(**{"in_channels": 6, "out_channels": 4, "kernel_size": 3, **arguments})


def test_padding_words_of_a_transposed_convolution() -> None:
    with pytest.raises(ValueError, match="padding is 'same'; a transposed convolution takes numbers"):
        DynamicConvTranspose2d(4, 4, 3, padding="same")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [DynamicConv2d, CondConv2d])
@pytest.mark.parametrize("shape", [(2, 5, 8, 8), (2, 6), (2, 6, 8, 8, 8), (5, 8, 8)])
def test_an_input_that_does_not_fit(kind: type[DynamicConv2d], shape: tuple[int, ...]) -> None:
    layer = kind(6, 4, 3, experts=4)
    with pytest.raises(ValueError, match=r"got input of shape|input has shape") as caught:
        layer(torch.randn(shape))
    assert "6" in str(caught.value)


def test_an_input_of_a_linear_layer_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"expected \(batch, 6"):
        DynamicLinear(6, 4)(torch.randn(2, 5))


def test_routing_of_another_shape() -> None:
    layer, x = DynamicConv2d(6, 4, 3), torch.randn(2, 6, 5, 5)
    for shape in ((2, 3), (1, 4), (4,), (2, 4, 1, 1)):
        with pytest.raises(ValueError, match=r"routing weights have shape .*; expected \(2, 4\), \(batch, experts\)"):
            layer(x, torch.rand(shape))


def test_a_router_that_returns_another_shape() -> None:
    layer = DynamicConv2d(6, 4, 3, router=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)))
    with pytest.raises(ValueError, match=r"routing weights have shape \(2, 5\); expected \(2, 4\)"):
        layer(torch.randn(2, 6, 5, 5))


def test_an_explicit_strategy_is_obeyed_or_raises() -> None:
    layer = DynamicConv2d(6, 4, 3, strategy="single")
    assert layer.plan(torch.randn(1, 6, 5, 5)).strategy == "single"
    with pytest.raises(ValueError, match="strategy 'single' cannot run this call: the batch holds 2 examples"):
        layer(torch.randn(2, 6, 5, 5))


def test_numpy_counts_and_so_does_a_plan_without_a_batch() -> None:
    numpy = pytest.importorskip("numpy")
    layer = DynamicConv2d(numpy.int64(4), numpy.int32(8), numpy.int64(3), padding=numpy.int8(1))
    assert layer.kernel_size == (3, 3)
    assert layer(torch.randn(4, 5, 5)).shape == (8, 5, 5)
    assert layer.plan(torch.randn(4, 5, 5)).strategy == "single"
    with pytest.raises(ValueError, match="kernel_size is"):
        DynamicConv2d(4, 8, numpy.float32(3))


@pytest.mark.parametrize("size", [(8, 12, 12), (1, 2, 8, 12, 12), (12,)])
def test_an_output_size_of_another_length(size: tuple[int, ...]) -> None:
    layer = DynamicConvTranspose2d(4, 8, 3, stride=2)
    assert layer(torch.randn(2, 4, 5, 5), output_size=(2, 8, 12, 12)).shape == (2, 8, 12, 12)
    assert layer(torch.randn(4, 5, 5), output_size=(8, 12, 12)).shape == (8, 12, 12)
    with pytest.raises(ValueError, match="output_size is"):
        layer(torch.randn(2, 4, 5, 5), output_size=size)
