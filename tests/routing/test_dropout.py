"""Expert dropout: what stays in expectation, what stays in sum, and that no example loses all its experts."""

from __future__ import annotations

import pytest
import torch

from dynaconv import DynamicConv2d, SigmoidRouter, SoftmaxRouter
from dynaconv.routing import drop_experts
from tolerances import assert_close

DRAWS = 40_000


@pytest.mark.parametrize("experts", [1, 2, 8])
@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_the_expectation_stays(experts: int, probability: float) -> None:
    routing = torch.rand(experts, dtype=torch.float64) + 0.1
    dropped = drop_experts(routing.expand(DRAWS, experts), probability, keep_sum=False)
    error = dropped.std(dim=0) / DRAWS**0.5
    assert ((dropped.mean(dim=0) - routing).abs() <= 4 * error + 1e-12).all()


@pytest.mark.parametrize("experts", [1, 2, 8])
@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_the_sum_stays(experts: int, probability: float) -> None:
    routing = torch.rand(1000, experts, dtype=torch.float64).softmax(dim=1)
    dropped = drop_experts(routing, probability, keep_sum=True)
    assert_close(dropped.sum(dim=1), torch.ones(1000, dtype=torch.float64))
    # Survivors keep their proportions.
    both = (dropped[:, 0] > 0) & (dropped[:, -1] > 0)
    assert_close(dropped[both, 0] / dropped[both, -1], routing[both, 0] / routing[both, -1])


@pytest.mark.parametrize("keep_sum", [True, False])
def test_drops_with_the_probability_asked_for_and_never_everything(keep_sum: bool) -> None:
    experts, probability = 3, 0.4
    dropped = drop_experts(torch.full((DRAWS, experts), 0.5), probability, keep_sum=keep_sum)
    assert (dropped != 0).any(dim=1).all()
    gone = (dropped == 0).double().mean().item()
    assert gone == pytest.approx(probability - probability**experts, abs=0.01)
    # Each example and each expert on its own.
    assert len({tuple(row) for row in (dropped == 0).tolist()}) == 2**experts - 1


@pytest.mark.parametrize("keep_sum", [True, False])
def test_gradients_reach_the_kept_and_are_numbers(keep_sum: bool) -> None:
    routing = torch.rand(50, 4, requires_grad=True)
    dropped = drop_experts(routing, 0.5, keep_sum=keep_sum)
    dropped.square().sum().backward()
    assert routing.grad is not None
    assert torch.isfinite(routing.grad).all()
    assert (routing.grad != 0).any()


def test_all_weights_at_zero_stay_zero() -> None:
    assert not drop_experts(torch.zeros(50, 3), 0.5, keep_sum=True).any()


@pytest.mark.parametrize("kind", [SigmoidRouter, SoftmaxRouter])
def test_only_in_training(kind: type[SigmoidRouter] | type[SoftmaxRouter]) -> None:
    router, x = kind(8, 4, expert_dropout=0.5), torch.randn(64, 8, 2, 2)
    plain = kind(8, 4)
    plain.load_state_dict(router.state_dict())
    assert torch.equal(router.eval()(x), plain(x))
    in_training = router.train()(x)
    assert (in_training == 0).any()
    if kind is SoftmaxRouter:
        assert_close(in_training.sum(dim=1), torch.ones(64))
    assert not torch.equal(in_training, router(x))


def test_nothing_is_dropped_at_probability_zero() -> None:
    routing = torch.rand(100, 4)
    assert torch.equal(drop_experts(routing, 0.0, keep_sum=False), routing)


def test_a_layer_trains_with_it() -> None:
    layer = DynamicConv2d(4, 5, 3, router=lambda c, k: SoftmaxRouter(c, k, expert_dropout=0.5))
    layer(torch.randn(8, 4, 6, 6)).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in layer.parameters())
