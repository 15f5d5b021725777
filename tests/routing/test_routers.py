"""Routers: the papers' formulas, float32 whatever runs around them, gradients, extreme logits, bad arguments."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dynaconv import DynamicConv2d, Router, SigmoidRouter, SoftmaxRouter
from dynaconv.routing import PooledRouter
from tolerances import assert_close

SPACES: list[tuple[int, ...]] = [(), (5,), (3, 4), (2, 3, 2)]


def pooled(x: Tensor) -> list[list[float]]:
    """Mean over space, written out."""
    return [[sum(channel.flatten().tolist()) / max(1, channel.numel()) for channel in example] for example in x]


def matrix_product(rows: list[list[float]], layer: nn.Linear) -> list[list[float]]:
    weight = layer.weight.tolist()
    bias = [0.0] * len(weight) if layer.bias is None else layer.bias.tolist()
    return [
        [sum(a * w for a, w in zip(row, unit, strict=True)) + b for unit, b in zip(weight, bias, strict=True)]
        for row in rows
    ]


def relu(rows: list[list[float]]) -> list[list[float]]:
    return [[max(0.0, value) for value in row] for row in rows]


def softmax(rows: list[list[float]], temperature: float) -> list[list[float]]:
    powers = [[math.exp(value / temperature) for value in row] for row in rows]
    return [[power / sum(row) for power in row] for row in powers]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_sigmoid_is_condconvs_formula(space: tuple[int, ...]) -> None:
    router, x = SigmoidRouter(3, 5).double(), torch.randn(4, 3, *space, dtype=torch.float64)
    logits = matrix_product(pooled(x), router.fc)
    expected = [[1 / (1 + math.exp(-value)) for value in row] for row in logits]
    assert_close(router(x), torch.tensor(expected, dtype=torch.float64))
    assert router.hidden is None
    assert router.fc.bias is not None


def test_sigmoid_with_a_hidden_layer() -> None:
    router, x = SigmoidRouter(3, 5, hidden=7).double(), torch.randn(4, 3, 2, 2, dtype=torch.float64)
    assert router.hidden is not None
    logits = matrix_product(relu(matrix_product(pooled(x), router.hidden)), router.fc)
    expected = [[1 / (1 + math.exp(-value)) for value in row] for row in logits]
    assert_close(router(x), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize("temperature", [1.0, 30.0, 0.25])
def test_softmax_is_dynamic_convolutions_formula(space: tuple[int, ...], temperature: float) -> None:
    router = SoftmaxRouter(9, 4, temperature=temperature).double()
    x = torch.randn(5, 9, *space, dtype=torch.float64)
    assert router.hidden is not None
    assert (router.hidden.in_features, router.hidden.out_features) == (9, 2)
    assert router.hidden.bias is None
    assert router.fc.bias is None
    logits = matrix_product(relu(matrix_product(pooled(x), router.hidden)), router.fc)
    routing = router(x)
    assert_close(routing, torch.tensor(softmax(logits, temperature), dtype=torch.float64))
    assert_close(routing.sum(dim=1), torch.ones(5, dtype=torch.float64))


def test_the_softmax_row_of_condconv_is_one_linear_layer() -> None:
    router = SoftmaxRouter(3, 4, hidden=0, temperature=1.0, bias=True).double()
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    expected = softmax(matrix_product(pooled(x), router.fc), 1.0)
    assert_close(router(x), torch.tensor(expected, dtype=torch.float64))


def test_few_channels_keep_a_hidden_layer_of_one() -> None:
    router = SoftmaxRouter(3, 4)
    assert router.hidden is not None
    assert router.hidden.out_features == 1


def test_previous_routing_weights_are_fed_in_beside_the_pooled_input() -> None:
    router = SigmoidRouter(3, 4, previous_experts=2).double()
    x, previous = torch.randn(5, 3, 2, 2, dtype=torch.float64), torch.rand(5, 2, dtype=torch.float64)
    rows = [a + b for a, b in zip(pooled(x), previous.tolist(), strict=True)]
    expected = [[1 / (1 + math.exp(-value)) for value in row] for row in matrix_product(rows, router.fc)]
    assert_close(router(x, previous), torch.tensor(expected, dtype=torch.float64))
    with pytest.raises(ValueError, match="expects 2 routing weights of the scope before it and got none"):
        router(x)
    with pytest.raises(ValueError, match=r"got shape \(5, 3\)"):
        router(x, torch.rand(5, 3))


ROUTERS: list[Any] = [
    SigmoidRouter,
    SoftmaxRouter,
    lambda c, k: SigmoidRouter(c, k, hidden=6, expert_dropout=0.3),
    lambda c, k: SoftmaxRouter(c, k, hidden=0, bias=True, temperature=1.0),
]


@pytest.mark.parametrize("make", ROUTERS)
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_trains_at_every_batch_size_and_every_parameter_has_a_gradient(make: Any, batch: int) -> None:
    router = make(8, 3).train()
    x = torch.randn(batch, 8, 4, 4, requires_grad=True)
    routing = router(x)
    assert routing.shape == (batch, 3)
    routing.square().sum().backward()
    for value in (x, *router.parameters()):
        assert value.grad is not None
        assert torch.isfinite(value.grad).all()


@pytest.mark.parametrize("make", [SigmoidRouter, lambda c, k: SoftmaxRouter(c, k, temperature=2.0)])
def test_gradients_are_those_of_finite_differences(make: Any) -> None:
    router = make(8, 3).double()
    weights = dict(router.named_parameters())

    def run(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(router, dict(zip(weights, values, strict=True)), (x,))

    x = torch.randn(2, 8, 3, dtype=torch.float64, requires_grad=True)
    leaves = tuple(value.detach().requires_grad_() for value in weights.values())
    assert torch.autograd.gradcheck(run, (x, *leaves))


@pytest.mark.parametrize("make", ROUTERS)
def test_computes_in_float32_under_autocast_and_with_half_precision_parameters(make: Any) -> None:
    router, x = make(8, 3).eval(), torch.randn(4, 8, 5, 5)
    plain = router(x)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = router(x)
    assert under_autocast.dtype == torch.float32
    assert torch.equal(under_autocast, plain)
    half = make(8, 3).eval()
    half.load_state_dict(router.state_dict())
    half.to(torch.bfloat16)
    again = make(8, 3).eval()
    again.load_state_dict({name: value.float() for name, value in half.state_dict().items()})
    from_half = half(x.bfloat16())
    assert from_half.dtype == torch.float32
    assert_close(from_half, again(x.bfloat16().float()), dtype=torch.float32)


def test_averages_half_precision_in_float32() -> None:
    """A mean in bfloat16 over a large image would stop growing at 256."""
    x = torch.ones(1, 1, 64, 64, dtype=torch.bfloat16)
    router = SigmoidRouter(1, 2)
    assert_close(router(x), router(torch.ones(1, 1)), dtype=torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("temperature", [30.0, 1.0, 1e-6])
def test_extreme_logits_and_temperatures_give_numbers(temperature: float, dtype: torch.dtype) -> None:
    router = SoftmaxRouter(2, 3, temperature=temperature, hidden=0)
    router.fc.weight.data = torch.tensor([[1e4, 0.0], [-1e4, 0.0], [0.0, 1e4]])
    router.to(dtype)
    x = torch.tensor([[1.0, 0.5], [-1.0, 0.5], [0.0, 0.0], [1e3, -1e3]], dtype=dtype, requires_grad=True)
    routing = router(x)
    assert_close(routing.sum(dim=1), torch.ones(4))
    assert routing[0, 0] > 0.99
    assert routing[1, 1] > 0.99
    assert_close(routing[2], torch.full((3,), 1 / 3))
    routing.square().sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert router.fc.weight.grad is not None
    assert torch.isfinite(router.fc.weight.grad).all()
    sigmoid = SigmoidRouter(2, 3)
    sigmoid.fc.weight.data = router.fc.weight.data.float()
    assert torch.isfinite(sigmoid(x)).all()


def test_your_own_router_is_a_class_with_one_method() -> None:
    class Even(Router):
        def forward(self, x: Tensor) -> Tensor:
            return x.new_full((x.shape[0], self.experts), 1 / self.experts)

    for router in (Even, Even(8, 4)):
        layer = DynamicConv2d(8, 6, 3, router=router)
        x = torch.randn(2, 8, 5, 5)
        expected = nn.functional.conv2d(x, layer.weight.mean(0), layer.bias.mean(0))
        assert_close(layer(x), expected)


def test_any_module_may_be_a_router() -> None:
    plain = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4), nn.Softmax(1))
    layer, x = DynamicConv2d(8, 6, 3, router=plain), torch.randn(2, 8, 5, 5)
    assert layer.router is plain
    assert_close(layer(x), layer(x, plain(x)))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: SigmoidRouter(8, 0), "experts is 0; expected a whole number of at least 1"),
        (lambda: SigmoidRouter(8, 2.0), "experts is 2.0; expected a whole number"),
        (lambda: SigmoidRouter(0, 2), "in_channels is 0; expected"),
        (lambda: SigmoidRouter(8, 2, hidden=0), "hidden is 0; expected a width of at least 1, or None"),
        (lambda: SigmoidRouter(8, 2, expert_dropout=1.0), r"expert_dropout is 1.0; expected a probability in \[0, 1\)"),
        (lambda: SigmoidRouter(8, 2, expert_dropout=-0.1), "expert_dropout is -0.1"),
        (lambda: SoftmaxRouter(8, 2, temperature=0.0), "temperature is 0.0; expected a number above 0"),
        (lambda: SoftmaxRouter(8, 2, temperature=-1.0), "temperature is -1.0"),
        (lambda: SoftmaxRouter(8, 2, temperature=float("nan")), "temperature is nan"),
        (lambda: SoftmaxRouter(8, 2, temperature=float("inf")), "temperature is inf"),
        (lambda: SoftmaxRouter(8, 2, temperature=1e-7), "temperature is 1e-07; expected .* at least 1e-06"),
        (lambda: SoftmaxRouter(8, 2, reduction=0), "reduction is 0; expected at least 1"),
        (lambda: SoftmaxRouter(8, 2, hidden=-1), "hidden is -1; expected"),
        (lambda: SigmoidRouter(8, 2, previous_experts=-1), "previous_experts is -1; expected"),
    ],
)
def test_names_a_bad_argument(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize("shape", [(2, 7, 4, 4), (8,), (2, 4, 8)])
def test_names_an_input_that_does_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"router got input of shape .*expected \(batch, 8, \*space\)"):
        SigmoidRouter(8, 2)(torch.randn(shape))


def test_the_base_of_pooled_routers_leaves_the_last_step_to_a_subclass() -> None:
    with pytest.raises(NotImplementedError):
        PooledRouter(3, 2)(torch.randn(1, 3))
