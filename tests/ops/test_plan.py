"""The choice of a strategy can be seen, and an explicit choice is obeyed or raises."""

from __future__ import annotations

import os
import random
import re
from unittest import mock

import pytest
import torch
from torch import Tensor

from dynaconv.kernels import cpu as kernels
from dynaconv.ops import CHOICES, STRATEGIES, Call, Geometry, Strategy, choose, convolve_each, mix, plan_of
from dynaconv.ops.plan import uses_of_axis


def call(batch: int, kernel: int, dims: int = 2) -> tuple[Tensor, Tensor, Tensor, Geometry]:
    space = (5,) * dims
    x = torch.randn(batch, 4, *space) if dims else torch.randn(batch, 4)
    return x, torch.randn(3, 6, 4, *(kernel,) * dims), torch.randn(batch, 3), Geometry(dims=dims)


@pytest.mark.parametrize(
    ("batch", "kernel", "dims", "chosen"),
    [(1, 3, 2, "single"), (1, 1, 2, "single"), (4, 1, 2, "matmul"), (4, 3, 2, "grouped"), (4, 0, 0, "matmul")],
)
def test_chooses_and_says_why_and_why_not_the_others(batch: int, kernel: int, dims: int, chosen: str) -> None:
    x, bank, routing, geometry = call(batch, kernel, dims)
    plan = plan_of(x, bank, routing, geometry=geometry)
    assert plan.strategy == chosen
    assert plan.why
    assert set(plan.others) == set(STRATEGIES) - {chosen}
    assert all(plan.others.values())
    shown = str(plan)
    assert shown.startswith(f"{chosen}: {plan.why}")
    for name, reason in plan.others.items():
        assert f"not {name}: {reason}" in shown


def test_frozen_layers_without_a_kernel_of_their_own_keep_channels_last() -> None:
    x, kernels = torch.randn(4, 6, 5, 5), torch.randn(4, 6, 3, 3, 3)
    geometry = Geometry(dims=2, groups=2)
    for layout, strategy in ((torch.channels_last, "loop"), (torch.contiguous_format, "grouped")):
        call = Call.of(x.contiguous(memory_format=layout), kernels, None, geometry)
        assert choose(call) == strategy
    y = convolve_each(x.contiguous(memory_format=torch.channels_last), kernels, geometry=geometry)
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_one_image_in_channels_last_under_a_1x1_kernel_is_one_product() -> None:
    x, bank, routing, geometry = call(1, 1)
    chosen = plan_of(x.to(memory_format=torch.channels_last), bank, routing, geometry=geometry)
    assert (chosen.strategy, chosen.why.endswith("is one matrix product")) == ("matmul", True)
    assert plan_of(x, bank, routing, geometry=geometry).strategy == "single"


@pytest.mark.parametrize("batch", [3, 64])
@pytest.mark.parametrize("geometry", [Geometry(dims=0), Geometry(dims=2, padding=1)], ids=["linear", "1x1 map"])
@pytest.mark.parametrize("compiler", [True, False])
def test_many_examples_that_use_a_kernel_at_one_position_use_every_expert(
    batch: int, geometry: Geometry, compiler: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if compiler and kernels.why_not() is not None:
        pytest.skip(f"no C kernels here: {kernels.why_not()}")
    if not compiler:
        monkeypatch.setattr(kernels, "why_not", lambda: "there is no compiler")
    x = torch.randn(batch, 160, *(1,) * geometry.dims)
    bank, routing = torch.randn(4, 160, 160, *(3,) * geometry.dims), torch.rand(batch, 4)
    chosen = plan_of(x, bank, routing, geometry=geometry)
    assert (chosen.strategy == ("experts" if compiler else "branches")) == (batch == 64), chosen


@pytest.mark.skipif(kernels.why_not() is not None, reason=f"no C kernels here: {kernels.why_not()}")
@pytest.mark.parametrize(
    ("kernel", "side", "experts", "chosen"),
    [
        (3, 2, 4, "experts"),  # 16 of 36 products are inside the map: a weight is used 1.8 times
        (3, 3, 4, "experts"),
        (3, 3, 8, "tiled"),
        (3, 4, 4, "tiled"),
        (1, 2, 4, "experts"),
        (1, 3, 4, "tiled"),
        (3, 8, 2, "tiled"),
    ],
)
def test_small_maps_use_every_expert_while_that_costs_less_than_mixing(
    kernel: int, side: int, experts: int, chosen: str
) -> None:
    x, bank, routing = torch.randn(16, 256, side, side), torch.randn(experts, 256, 256, kernel, kernel), torch.rand(1)
    found = plan_of(x, bank, routing.expand(16, experts), geometry=Geometry(dims=2, padding=kernel // 2))
    assert found.strategy == chosen, found
    assert "positions of an example" in (found.why if chosen == "experts" else found.others["experts"])


def test_reasons_print_plain_numbers() -> None:
    x, bank, routing = torch.empty(8, 16, 32, 32), torch.empty(4, 16, 16, 3, 3), torch.empty(8, 4)
    found = plan_of(x, bank, routing, geometry=Geometry(dims=2, padding=1))
    assert "a weight is used at 982 positions" in found.others["experts"]


def test_uses_inside_the_map_are_counted() -> None:
    generator = random.Random(0)
    for _ in range(300):
        length, taps, stride, padding, dilation = (generator.randint(low, 6) for low in (1, 1, 1, 0, 1))
        outputs = (length + 2 * padding - dilation * (taps - 1) - 1) // stride + 1
        if outputs > 0:
            reads = [i * stride - padding + t * dilation for i in range(outputs) for t in range(taps)]
            inside = sum(0 <= read < length for read in reads)
            assert uses_of_axis(length, taps, stride, padding, dilation) == pytest.approx(inside / taps)


def test_a_plan_says_what_was_decided_by_memory_that_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    x, bank, routing = torch.randn(2, 4, 256, 256), torch.randn(2, 4, 4, 3, 3), torch.randn(2, 2)
    assert "keep_freed_memory" in plan_of(x, bank, routing, geometry=Geometry(dims=2)).why
    monkeypatch.setattr("dynaconv.ops.call.keeps_memory", lambda: True)
    kept = plan_of(x, bank, routing, geometry=Geometry(dims=2))
    assert kept.strategy == "grouped"
    assert "freed memory stays in this process" in kept.why


def test_large_examples_are_looped_over_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynaconv.ops.call.keeps_memory", lambda: False)  # an earlier test may have asked for it
    bank, routing = torch.randn(2, 4, 4, 3, 3), torch.randn(2, 2)
    chosen = {
        side: plan_of(torch.randn(2, 4, side, side), bank, routing, geometry=Geometry(dims=2)) for side in (64, 256)
    }
    assert {side: plan.strategy for side, plan in chosen.items()} == {64: "grouped", 256: "loop"}


@pytest.mark.parametrize("strategy", list(STRATEGIES))
def test_runs_what_was_chosen(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, bank, routing, geometry = call(1, 1)
    if (reason := plan_of(x, bank, routing, geometry=geometry).others.get(strategy)) and "possible" not in reason:
        with pytest.raises(ValueError, match=re.escape(reason)):
            mix(x, bank, routing, geometry=geometry, strategy=strategy)
        return
    ran: list[str] = []
    for name, candidate in list(STRATEGIES.items()):
        spy = mock.Mock(side_effect=lambda *args, name=name, run=candidate.run_mix: (ran.append(name), run(*args))[1])
        monkeypatch.setitem(STRATEGIES, name, Strategy(refuses=candidate.refuses, mix=spy))
    mix(x, bank, routing, geometry=geometry, strategy=strategy)
    assert ran == [strategy]
    plan = plan_of(x, bank, routing, geometry=geometry, strategy=strategy)
    assert (plan.strategy, plan.why) == (strategy, "you asked for it")


def test_auto_runs_what_the_plan_says(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    for name, candidate in list(STRATEGIES.items()):
        spy = mock.Mock(side_effect=lambda *args, name=name, run=candidate.run_mix: (ran.append(name), run(*args))[1])
        monkeypatch.setitem(STRATEGIES, name, Strategy(refuses=candidate.refuses, mix=spy))
    for batch, kernel, dims in [(1, 3, 2), (2, 3, 2), (2, 1, 2), (2, 0, 0), (2, 2, 3)]:
        x, bank, routing, geometry = call(batch, kernel, dims)
        mix(x, bank, routing, geometry=geometry)
        assert ran[-1] == plan_of(x, bank, routing, geometry=geometry).strategy


def test_an_explicit_choice_that_cannot_run_says_why_and_what_to_do() -> None:
    x, bank, routing, geometry = call(4, 3)
    with pytest.raises(ValueError, match=r"strategy 'matmul' cannot run this call: the kernel is 3x3.*'auto'"):
        mix(x, bank, routing, geometry=geometry, strategy="matmul")
    with pytest.raises(ValueError, match="'single' cannot run this call: the batch holds 4 examples"):
        plan_of(x, bank, routing, geometry=geometry, strategy="single")


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_an_unknown_strategy_is_told_the_nearest_one(batch: int) -> None:
    x, bank, routing, geometry = call(batch, 3)
    with pytest.raises(ValueError, match=r"strategy is 'groupd'. Did you mean 'grouped'"):
        mix(x, bank, routing, geometry=geometry, strategy="groupd")


@pytest.mark.parametrize("batch", [0, 1, 3])
@pytest.mark.parametrize(
    "strategy", [name for name in CHOICES if name not in ("stencil", "tiled", "experts", "triton", "operator")]
)
def test_a_plan_can_be_had_for_every_batch_that_runs(batch: int, strategy: str) -> None:
    x, bank, routing, geometry = call(batch, 1)
    if strategy == "single" and batch == 3:
        with pytest.raises(ValueError, match="the batch holds 3 examples"):
            mix(x, bank, routing, geometry=geometry, strategy=strategy)
        return
    mix(x, bank, routing, geometry=geometry, strategy=strategy)
    assert plan_of(x, bank, routing, geometry=geometry, strategy=strategy).strategy in CHOICES


def test_the_environment_has_no_say() -> None:
    x, bank, routing, geometry = call(3, 3)
    before = plan_of(x, bank, routing, geometry=geometry)
    with mock.patch.object(os, "environ", {**os.environ, "DYNACONV_STRATEGY": "branches"}):
        assert plan_of(x, bank, routing, geometry=geometry) == before
