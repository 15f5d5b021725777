"""Dense layers by kernels of our own, ``tiled`` and ``experts``: equal to the reference, refused elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dynaconv import DynamicConv2d
from dynaconv.kernels import cpu as native
from dynaconv.ops import Geometry, mix
from dynaconv.ops.reference import reference
from tolerances import assert_close

pytestmark = pytest.mark.skipif(native.why_not() is not None, reason=f"no kernels of our own here: {native.why_not()}")

DENSE = pytest.mark.parametrize("strategy", ["tiled", "experts"])
NAMES = ("x", "bank", "routing", "bias")


def call(
    inputs: int, outputs: int, *, batch: int = 2, experts: int = 2, kernel: Any = (3, 3), space: Any = (6, 7)
) -> list[Tensor]:
    x = torch.randn(batch, inputs, *space).to(memory_format=torch.channels_last)
    bank = torch.randn(experts, outputs, inputs, *kernel)
    return [leaf.requires_grad_() for leaf in (x, bank, torch.rand(batch, experts), torch.randn(experts, outputs))]


def check(leaves: list[Tensor], geometry: Geometry, strategy: str) -> None:
    wide = [leaf.detach().double().requires_grad_() for leaf in leaves]
    y, expected = mix(*leaves, geometry=geometry, strategy=strategy), reference(*wide, geometry)
    assert y.is_contiguous(memory_format=torch.channels_last)
    upstream = torch.randn_like(y)
    actual = y, *torch.autograd.grad(y, leaves, upstream)
    wanted = expected, *torch.autograd.grad(expected, wide, upstream.double())
    for name, one, value in zip(("y", *NAMES), actual, wanted, strict=True):
        scale = max(1.0, value.abs().max().item())  # a sum of many rounded terms
        assert_close(one, value, dtype=torch.float32, scale=4 * scale, what=name)


@DENSE
@settings(max_examples=60)
@given(data=st.data())
def test_equals_the_reference(strategy: str, data: st.DataObject) -> None:
    pair = lambda least, most: data.draw(st.tuples(*(st.integers(least, most),) * 2))  # noqa: E731
    kernel, stride, padding, dilation = pair(1, 4), pair(1, 3), pair(0, 4), pair(1, 2)
    # 16, 32, 48 and 64 output channels are computed together; input channels by six, by two and alone.
    inputs, outputs = (data.draw(st.sampled_from([1, 2, 7, 16, 24, 33, 48, 64, 70, 100])) for _ in range(2))
    reach = [spread * (size - 1) + 1 - 2 * pad for size, spread, pad in zip(kernel, dilation, padding, strict=True)]
    space = [data.draw(st.integers(max(1, least), max(1, least) + 7)) for least in reach]
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    batch, experts = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 5))
    leaves = call(inputs, outputs, batch=batch, experts=experts, kernel=kernel, space=space)
    check(leaves, Geometry(dims=2, stride=stride, padding=padding, dilation=dilation), strategy)


@DENSE
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("inputs", "outputs", "batch", "kernel", "side"),
    [
        (300, 520, 6, 1, 7),  # several blocks of channels and pairs of panels, each for a group of examples
        (130, 129, 5, 3, 9),  # blocks of one tap
        (32, 16, 1, 1, 40),  # one pair, so that threads share the pixels, and their sums
        (20, 40, 3, 1, 24),  # a 1x1 kernel over several groups of examples, whose bank gradients are added
        (520, 300, 2, 3, 2),  # more blocks than pixels
        (300, 130, 41, 3, 5),  # more pixels than one group of examples has
        (5, 40, 2, 7, 50),  # many taps in a block, more than one stretch and chunk of pixels
    ],
)
def test_every_cut_of_the_work_equals_the_reference(
    inputs: int, outputs: int, batch: int, kernel: int, side: int, threads: int, strategy: str
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        leaves = call(inputs, outputs, batch=batch, kernel=(kernel, kernel), space=(side, side + 1))
        check(leaves, Geometry(dims=2, padding=kernel // 2), strategy)
    finally:
        torch.set_num_threads(before)


@DENSE
def test_only_the_gradients_that_are_asked_for(strategy: str) -> None:
    leaves = [leaf.detach() for leaf in call(5, 6)]
    for wanted in range(4):
        inputs = [leaf.clone().requires_grad_(index == wanted) for index, leaf in enumerate(leaves)]
        mix(*inputs, geometry=Geometry(dims=2), strategy=strategy).sum().backward()
        assert [leaf.grad is not None for leaf in inputs] == [index == wanted for index in range(4)]


@DENSE
def test_nothing_is_kept_for_the_backward_pass_but_the_arguments(strategy: str) -> None:
    kept: list[tuple[int, ...]] = []
    leaves = call(40, 48, batch=8)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(tuple(t.shape)) or t, lambda t: t):
        mix(*leaves, geometry=Geometry(dims=2), strategy=strategy)
    assert (8, 48, 40, 3, 3) not in kept
    assert (8, 40, 6, 7) in kept


@pytest.mark.parametrize("strategy", ["auto", "tiled", "experts"])
@pytest.mark.parametrize("experts", [1, 4])
def test_outputs_that_read_padding_alone_are_the_bias(strategy: str, experts: int) -> None:
    """A 1x1 kernel with padding and a stride may miss the map: no expert is used, and nothing may be packed."""
    leaves = call(130, 70, batch=4, experts=experts, kernel=(1, 1), space=(1, 5))
    check(leaves, Geometry(dims=2, padding=(1, 0), stride=(3, 1)), strategy)
    with torch.no_grad():
        y = mix(*leaves, geometry=Geometry(dims=2, padding=1, stride=(3, 1)), strategy=strategy)
    assert_close(y, (leaves[2] @ leaves[3])[:, :, None, None].expand_as(y))


@pytest.mark.parametrize("strategy", ["auto", "experts", "matmul", "loop"])
def test_a_linear_layer_over_no_rows_has_gradients_of_zeros(strategy: str) -> None:
    leaves = [torch.randn(5, 0, 60), torch.randn(3, 40, 60), torch.rand(5, 3), torch.randn(3, 40)]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    y = mix(*leaves, geometry=Geometry(dims=0), strategy=strategy)
    assert y.shape == (5, 0, 40)
    for leaf, gradient in zip(leaves, torch.autograd.grad(y.sum(), leaves), strict=True):
        assert torch.equal(gradient, torch.zeros_like(leaf))


@pytest.mark.parametrize("groups", [2, 8])
def test_refuses_groups(groups: int) -> None:
    x = torch.randn(2, 8, 9, 9).to(memory_format=torch.channels_last)
    with pytest.raises(ValueError, match="it is for convolutions over images, in one group"):
        DynamicConv2d(8, 8, 3, groups=groups, experts=2, strategy="tiled")(x)


def test_is_not_chosen_where_torch_must_see_the_operation() -> None:
    x = torch.randn(8, 8, 9, 9).to(memory_format=torch.channels_last)
    layer = DynamicConv2d(8, 8, 3, experts=2)
    exported = torch.export.export(layer, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=2)},))
    torch.testing.assert_close(exported.module()(x), layer(x))
    assert layer.plan(x).strategy == "tiled"
    contiguous = layer.plan(x.contiguous())
    assert contiguous.strategy == "tiled"
    assert "converted to channels_last and back" in contiguous.why
