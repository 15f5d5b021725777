"""Depthwise layers by kernels of our own: equal to the reference in float64, and refused wherever they cannot run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from dynaconv import DynamicConv2d
from dynaconv.kernels import cpu as native
from dynaconv.ops import Geometry, mix, plan_of
from dynaconv.ops.reference import reference
from tolerances import assert_close

pytestmark = pytest.mark.skipif(native.why_not() is not None, reason=f"no kernels of our own here: {native.why_not()}")

NAMES = ("x", "bank", "routing", "bias")


def call(
    channels: int = 20, batch: int = 2, side: int = 6, kernel: int = 3, **moves: Any
) -> tuple[list[Tensor], Geometry]:
    x = torch.randn(batch, channels, side, side + 1).to(memory_format=torch.channels_last)
    leaves = [x, torch.randn(3, channels, 1, kernel, kernel), torch.rand(batch, 3), torch.randn(3, channels)]
    return [leaf.requires_grad_() for leaf in leaves], Geometry(dims=2, groups=channels, **moves)


def gradients(y: Tensor, leaves: list[Tensor], upstream: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(y, leaves, upstream.to(y.dtype)))


@settings(max_examples=60)
@given(data=st.data())
def test_equals_the_reference(data: st.DataObject) -> None:
    pair = lambda least, most: data.draw(st.tuples(*(st.integers(least, most),) * 2))  # noqa: E731
    kernel, stride, padding, dilation = pair(1, 5), pair(1, 3), pair(0, 4), pair(1, 2)
    # 16, 32 and 64 channels are computed together, and what is left over one by one.
    channels, batch = data.draw(st.sampled_from([2, 15, 16, 33, 64, 100, 131])), data.draw(st.integers(1, 3))
    reach = [spread * (size - 1) + 1 - 2 * pad for size, spread, pad in zip(kernel, dilation, padding, strict=True)]
    space = [data.draw(st.integers(max(1, least), max(1, least) + 7)) for least in reach]
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    x = torch.randn(batch, channels, *space).to(memory_format=torch.channels_last)
    leaves = [x, torch.randn(2, channels, 1, *kernel), torch.rand(batch, 2), torch.randn(2, channels)]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    wide = [leaf.detach().double().requires_grad_() for leaf in leaves]
    geometry = Geometry(dims=2, groups=channels, stride=stride, padding=padding, dilation=dilation)
    y, expected = mix(*leaves, geometry=geometry, strategy="stencil"), reference(*wide, geometry)
    assert_close(y, expected, dtype=torch.float32, scale=4)
    upstream = torch.randn_like(y)
    for name, actual, value in zip(
        NAMES, gradients(y, leaves, upstream), gradients(expected, wide, upstream), strict=True
    ):
        scale = max(1.0, value.abs().max().item())  # a sum of many rounded terms
        assert_close(actual, value, dtype=torch.float32, scale=4 * scale, what=name)


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("batch", [1, 2])
def test_threads_change_nothing(threads: int, batch: int) -> None:
    leaves, geometry = call(channels=200, batch=batch, padding=1, stride=2)
    one = mix(*leaves, geometry=geometry, strategy="stencil")
    upstream = torch.randn_like(one)
    expected = gradients(one, leaves, upstream)
    torch.set_num_threads(threads)
    try:
        several = mix(*leaves, geometry=geometry, strategy="stencil")
        actual = gradients(several, leaves, upstream)
    finally:
        torch.set_num_threads(1)
    assert torch.equal(several, one)
    assert all(torch.equal(first, second) for first, second in zip(actual[:2], expected[:2], strict=True))


@pytest.mark.parametrize("frozen", range(4))
def test_no_gradient_is_computed_for_what_needs_none(frozen: int) -> None:
    leaves, geometry = call(padding=1)
    leaves[frozen].requires_grad_(False)
    mix(*leaves, geometry=geometry, strategy="stencil").sum().backward()
    assert [leaf.grad is None for leaf in leaves] == [index == frozen for index in range(4)]


def test_an_upstream_gradient_of_another_layout_is_understood() -> None:
    leaves, geometry = call(padding=1)
    y = mix(*leaves, geometry=geometry, strategy="stencil")
    wide = [leaf.detach().double().requires_grad_() for leaf in leaves]
    upstream = torch.randn(y.shape[::-1]).permute(3, 2, 1, 0)
    expected = gradients(reference(*wide, geometry), wide, upstream)
    for name, actual, value in zip(NAMES, gradients(y, leaves, upstream), expected, strict=True):
        assert_close(actual, value, dtype=torch.float32, scale=8, what=name)


def test_is_chosen_for_a_depthwise_layer_in_channels_last_and_only_there() -> None:
    leaves, geometry = call()
    chosen = plan_of(*leaves[:3], geometry=geometry)
    assert chosen.strategy == "stencil"
    assert "one pass" in chosen.why
    layer = DynamicConv2d(20, 20, 3, padding=1, groups=20)
    assert layer.plan(leaves[0]).strategy == "stencil"
    assert layer.plan(leaves[0].contiguous()).strategy == "grouped"


def refusal(leaves: list[Tensor], geometry: Geometry) -> str:
    return plan_of(*leaves[:3], geometry=geometry).others["stencil"]


def test_says_what_it_cannot_do() -> None:
    (x, bank, routing, _), geometry = call()
    assert "possible, but the input is contiguous" in refusal([x.contiguous(), bank, routing], geometry)
    assert "float32" in refusal([x.double(), bank.double(), routing.double()], geometry)
    assert "depthwise" in refusal([x, torch.randn(3, 8, 20, 3, 3), routing], Geometry(dims=2))
    assert "depthwise" in refusal([x, torch.randn(3, 40, 1, 3, 3), routing], geometry)
    with torch.autocast("cpu", torch.bfloat16):
        assert "float32" in refusal([x, bank, routing], geometry)
    with pytest.raises(ValueError, match="'stencil' cannot run this call: it computes in float32 on a CPU"):
        mix(x.double(), bank.double(), routing, geometry=geometry, strategy="stencil")


def test_leaves_tensors_without_memory_and_watched_calls_to_torch() -> None:
    (x, bank, routing, _), geometry = call()
    with FlopCounterMode(display=False) as counter:
        assert "watched" in refusal([x, bank, routing], geometry)
        mix(x, bank, routing, geometry=geometry)
    assert counter.get_total_flops() > 0
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = [mode.from_tensor(tensor.detach()) for tensor in (x, bank, routing)]
        assert mix(*fake, geometry=geometry).shape == (2, 20, 4, 5)

    def one(x: Tensor, routing: Tensor) -> Tensor:
        return mix(x, bank.detach(), routing, geometry=geometry).sum()

    assert torch.func.grad(one)(x.detach(), routing.detach()).shape == x.shape


def test_without_a_compiler_the_layer_runs_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    leaves, geometry = call(padding=1)
    with_kernels = mix(*leaves, geometry=geometry)
    monkeypatch.setattr(native, "why_not", lambda: "there is no C compiler (cc) on the path")
    assert refusal(leaves, geometry) == "the kernels are not available: there is no C compiler (cc) on the path"
    assert_close(mix(*leaves, geometry=geometry), with_kernels)
