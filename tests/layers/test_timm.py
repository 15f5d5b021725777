"""The numbers of ``timm.layers.CondConv2d`` given the same weights and routing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dynaconv import CondConv2d
from dynaconv.ops import CHOICES
from tolerances import assert_close

CALLS: list[dict[str, Any]] = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 1, "padding": 0, "bias": True},
    {"kernel_size": 5, "stride": 2, "padding": 2, "bias": True},
    {"kernel_size": 3, "padding": 2, "dilation": 2},
    {"kernel_size": 3, "padding": 1, "groups": 2, "bias": True},
    {"kernel_size": 3, "padding": 1, "groups": 8},
    {"kernel_size": 3, "padding": "same"},
    {"kernel_size": 3, "stride": 2, "padding": "same", "bias": True},
    {"kernel_size": 5, "stride": 2, "padding": "same", "groups": 8},
    {"kernel_size": 2, "stride": 2, "padding": "same"},
]


OTHERS = ("stencil", "tiled", "experts", "triton", "operator")  # they have tests of their own


@pytest.mark.parametrize("strategy", [name for name in CHOICES if name not in OTHERS])
@pytest.mark.parametrize("call", CALLS, ids=str)
def test_same_numbers_and_gradients(call: dict[str, Any], strategy: str) -> None:
    their_class = pytest.importorskip("timm.layers").CondConv2d
    theirs = their_class(8, 8, **{"bias": False, **call}, num_experts=4).double()
    ours = CondConv2d(8, 8, **{"bias": False, **call}, experts=4, strategy=strategy).double()
    with torch.no_grad():
        ours.weight.copy_(theirs.weight.view_as(ours.weight))
        if ours.bias is not None:
            ours.bias.copy_(theirs.bias)
    batch = 1 if strategy == "single" else 3
    x = torch.randn(batch, 8, 9, 10, dtype=torch.float64, requires_grad=True)
    routing = torch.rand(batch, 4, dtype=torch.float64, requires_grad=True)
    if strategy == "matmul" and call["kernel_size"] != 1:
        with pytest.raises(ValueError, match="this form is for 1x1 and linear"):
            ours(x, routing)
        return
    y, expected = ours(x, routing), theirs(x, routing)
    assert_close(y, expected)
    upstream = torch.randn_like(y)
    weights = [[layer.weight] + ([] if layer.bias is None else [layer.bias]) for layer in (ours, theirs)]
    mine = torch.autograd.grad(y, [x, routing, *weights[0]], upstream)
    others = torch.autograd.grad(expected, [x, routing, *weights[1]], upstream)
    for actual, wanted in zip(mine, others, strict=True):
        assert_close(actual, wanted.view_as(actual), scale=max(1.0, wanted.abs().max().item()))
