"""Dynamic layers state their own cost; routers stand apart, wherever they sit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from counting.networks import PlainDynamic, PlainRouter
from dynaconv.counting import Counted, LayerCount, cost, layer_count

W = 6 * 8 * 9
ATTENTION = 8 * 2 + 2 * 4


class Block(nn.Module):
    """Two layers that share one router (a scope)."""

    def __init__(self) -> None:
        super().__init__()
        self.router = PlainRouter(8, 4)
        self.first = PlainDynamic(None, 8, 8, 1, 1)
        self.second = PlainDynamic(None, 6, 8, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        routing = self.router(x)
        return self.second(self.first(x, routing), routing)


@pytest.mark.parametrize("strategy", ["mixed", "branches", "unheard-of"])
def test_the_strategy_does_not_matter(strategy: str) -> None:
    report = cost(PlainDynamic(PlainRouter(8, 4), 6, 8, 3, 3, strategy=strategy), (8, 7, 7))
    assert (report.kernel, report.mixing, report.routing) == (49 * W, 4 * W, ATTENTION)
    assert report == cost(PlainDynamic(PlainRouter(8, 4), 6, 8, 3, 3), (8, 7, 7))


def test_a_layers_own_router_stands_in_its_row() -> None:
    (row,) = cost(nn.Sequential(PlainDynamic(PlainRouter(8, 4), 6, 8, 3, 3)), (8, 7, 7)).layers
    assert (row.name, row.kind, row.experts, row.output_shape) == ("0", "PlainDynamic", 4, (1, 6, 7, 7))
    assert (row.kernel, row.mixing, row.routing, row.parameters) == (49 * W, 4 * W, ATTENTION, 4 * W + ATTENTION)


def test_a_scopes_router_has_a_row_of_its_own() -> None:
    report = cost(nn.Sequential(Block()), (8, 7, 7))
    rows = {row.name: (row.kernel, row.mixing, row.routing, row.parameters) for row in report.layers}
    assert rows == {
        "0.router": (0, 0, ATTENTION, ATTENTION),
        "0.first": (49 * 64, 4 * 64, 0, 4 * 64),
        "0.second": (49 * W, 4 * W, 0, 4 * W),
    }
    assert report.routing == ATTENTION


def test_a_router_that_two_layers_own_runs_twice_and_is_stored_once() -> None:
    router = PlainRouter(8, 4)
    model = nn.Sequential(PlainDynamic(router, 8, 8, 1, 1), PlainDynamic(router, 8, 8, 1, 1))
    report = cost(model, (8, 7, 7))
    assert [row.routing for row in report.layers] == [ATTENTION, ATTENTION]
    assert [row.parameters for row in report.layers] == [4 * 64 + ATTENTION, 4 * 64]
    assert report.parameters.routers == ATTENTION


def test_all_work_inside_a_router_is_routing() -> None:
    class DynamicRouter(nn.Module):
        is_router = True

        def __init__(self) -> None:
            super().__init__()
            self.conv = PlainDynamic(PlainRouter(8, 4), 4, 8, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).mean((2, 3)).softmax(1)

    report = cost(PlainDynamic(DynamicRouter(), 6, 8, 3, 3), (8, 7, 7))
    assert (report.kernel, report.mixing, report.routing) == (49 * W, 4 * W, 49 * 32 + 4 * 32 + ATTENTION)
    assert report.parameters.experts == 4 * W
    assert report.parameters.routers == 4 * 32 + ATTENTION
    assert len(report.layers) == 1


def test_parameters_by_purpose() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), PlainDynamic(PlainRouter(8, 4), 6, 8, 3, 3))
    model[0].requires_grad_(False)
    parameters = cost(model, (3, 7, 7)).parameters
    assert (parameters.experts, parameters.routers) == (4 * W, ATTENTION)
    assert parameters.total == sum(p.numel() for p in model.parameters())
    assert parameters.trainable == parameters.total - 224


def test_bias_mixing_is_reported_and_not_counted() -> None:
    class WithBias(PlainDynamic):
        def count(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> LayerCount:
            return layer_count(self.weight.shape[1:], 4, input_shape, output_shape, dims=2, bias=True)

    report = cost(WithBias(PlainRouter(8, 4), 6, 8, 3, 3), (8, 7, 7))
    assert (report.bias_mixing, report.total) == (4 * 6, 49 * W + 4 * W + ATTENTION)
    assert cost(WithBias(PlainRouter(8, 4), 6, 8, 3, 3), (8, 7, 7), rule="tf").elementwise == 49 * 6 / 2
    assert "not counted 24 for mixing per-expert biases" in str(report)


@pytest.mark.parametrize(
    ("kernel", "given", "made", "options", "positions"),
    [
        ((6, 4, 3), (2, 8, 9), (2, 6, 5), {"dims": 1}, 5),
        ((6, 8, 3, 3), (2, 8, 9, 9), (2, 6, 9, 7), {"dims": 2}, 63),
        ((6, 8, 3, 3, 3), (2, 8, 4, 4, 4), (2, 6, 2, 2, 2), {"dims": 3}, 8),
        ((8, 6, 4, 4), (2, 8, 5, 5), (2, 6, 10, 10), {"dims": 2, "transposed": True}, 25),
        ((6, 8), (2, 8), (2, 6), {"dims": 0}, 1),
        ((6, 8), (2, 5, 3, 8), (2, 5, 3, 6), {"dims": 0}, 15),
    ],
)
def test_layer_count(kernel: tuple, given: tuple, made: tuple, options: dict, positions: int) -> None:
    weights = torch.Size(kernel).numel()
    count = layer_count(kernel, 4, given, made, bias=True, **options)
    assert count == LayerCount(
        kernel=2 * positions * weights,
        mixing=2 * 4 * weights,
        experts=4,
        kernel_weights=weights,
        bias_mixing=2 * 4 * 6,
    )


def test_layer_count_of_one_example_without_a_batch() -> None:
    batched = layer_count((6, 8, 3, 3), 4, (1, 8, 9, 9), (1, 6, 9, 7), dims=2, bias=True)
    assert layer_count((6, 8, 3, 3), 4, (8, 9, 9), (6, 9, 7), dims=2, bias=True) == batched
    assert layer_count((6, 8), 4, (8,), (6,), dims=0) == layer_count((6, 8), 4, (1, 8), (1, 6), dims=0)


def test_an_unrelated_count_is_not_the_protocol() -> None:
    class Counter(nn.Linear):
        def count(self) -> int:
            raise AssertionError("not ours to call")

    assert cost(Counter(4, 3), (4,)).total == 12


def test_a_count_must_return_a_layer_count() -> None:
    class Wrong(nn.Linear):
        def count(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
            return 7

    with pytest.raises(ValueError, match=r"0\.count returned 7: expected a dynaconv\.cost\.LayerCount"):
        cost(nn.Sequential(Wrong(4, 3)), (4,))


def test_protocol_is_checkable() -> None:
    assert isinstance(PlainDynamic(None, 1, 1, 1, 1), Counted)
    assert not isinstance(nn.Conv2d(1, 1, 1), Counted)
