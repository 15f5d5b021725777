"""Frozen layers obey the laws of dynamic layers, whatever the shape, layout, dtype, thread or process."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from dynaconv import DynamicConv2d, freeze
from dynaconv.inference import FrozenLayer
from dynaconv.kernels import cpu as native
from dynaconv.ops.geometry import resolve_padding
from tolerances import assert_close


@dataclass(frozen=True)
class Case:
    """A layer over images and how its input lies; the numbers follow from ``seed``."""

    batch: int
    inputs: int
    outputs: int
    groups: int
    experts: int
    kernel: tuple[int, int]
    stride: int
    dilation: int
    padding: int | str
    mode: str
    bias: bool
    space: tuple[int, int]
    layout: str
    bank_dtype: str | None
    seed: int

    def layer(self) -> DynamicConv2d:
        torch.manual_seed(self.seed)
        made = DynamicConv2d(
            self.inputs,
            self.outputs,
            self.kernel,
            stride=self.stride,
            dilation=self.dilation,
            padding=self.padding,
            groups=self.groups,
            bias=self.bias,
            padding_mode=self.mode,
            experts=self.experts,
        )
        made.router.temperature.fill_(1.0)
        nn.init.normal_(made.router.fc.weight, std=2.0)  # routing weights that depend on the input
        return made.eval()

    def frozen(self, bank_dtype: str | None = None) -> FrozenLayer:
        made = freeze(self.layer(), examples=self.input("contiguous", batch=1), bank_dtype=bank_dtype)
        assert isinstance(made, FrozenLayer)
        return made

    def input(self, layout: str | None = None, batch: int | None = None) -> Tensor:
        batch = self.batch if batch is None else batch
        generator = torch.Generator().manual_seed(self.seed)
        return lay_out(torch.randn(batch, self.inputs, *self.space, generator=generator), layout or self.layout)


def lay_out(x: Tensor, layout: str) -> Tensor:
    """The same numbers in another order; ``expanded`` repeats the first example."""
    last = x.to(memory_format=torch.channels_last)
    if layout == "offset":
        return torch.cat([last[:1], last]).to(memory_format=torch.channels_last)[1:]
    if layout == "strided":
        return torch.stack([last, last], dim=-1)[..., 0]
    if layout == "channel slice":
        return torch.cat([last, last], dim=1).to(memory_format=torch.channels_last)[:, : x.shape[1]]
    if layout == "expanded":
        return x[:1].expand_as(x)
    return last if layout == "channels_last" else x


LAYOUTS = ("contiguous", "channels_last", "channels_last", "offset", "strided", "channel slice", "expanded")


@st.composite
def cases(draw: st.DrawFn) -> Case:
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (2, 2), (1, 3), (4, 1)]))
    groups = draw(st.sampled_from([1, 1, 2, 5, 33]))
    depthwise = draw(st.booleans())
    inputs = groups if depthwise else groups * draw(st.integers(1, 3))
    outputs = groups if depthwise and draw(st.booleans()) else groups * draw(st.integers(1, 3))
    padding: Any = draw(st.sampled_from([0, 1, 2, "same", "valid"]))
    dilation = draw(st.integers(1, 2))
    least = max(dilation * (side - 1) + 1 for side in kernel) + 2
    space = (
        (1, 1)
        if kernel == (1, 1) and padding == 0 and draw(st.booleans())
        else (
            least + draw(st.integers(0, 4)),
            least + draw(st.integers(0, 4)),
        )
    )
    return Case(
        batch=draw(st.sampled_from([0, 1, 5])),
        inputs=inputs,
        outputs=outputs,
        groups=groups,
        experts=draw(st.integers(1, 4)),
        kernel=kernel,
        stride=draw(st.integers(1, 3)),
        dilation=dilation,
        padding=padding,
        mode=draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"])),
        bias=draw(st.booleans()),
        space=space,
        layout=draw(st.sampled_from(LAYOUTS)),
        bank_dtype=draw(st.sampled_from([None, None, "bfloat16", "int8"])),
        seed=draw(st.integers(0, 2**16)),
    )


DENSE = Case(5, 20, 40, 1, 3, (3, 3), 1, 1, 1, "zeros", True, (9, 7), "channels_last", None, 1)
DEPTHWISE = Case(5, 33, 33, 33, 3, (3, 3), 2, 1, 1, "zeros", True, (9, 7), "channels_last", None, 2)
BOTH = pytest.mark.parametrize("case", [DENSE, DEPTHWISE], ids=["dense", "depthwise"])


def stored(case: Case, frozen: FrozenLayer) -> Tensor:
    """What a reduced bank stands for, computed in float64 by torch's own operations: the twin of a rounded bank."""
    twin = copy.deepcopy(frozen).double()
    return twin(case.input().double())


@given(cases())
@example(DENSE)
@example(DEPTHWISE)
def test_a_frozen_layer_is_its_twin(case: Case) -> None:
    layer, frozen, x = case.layer(), case.frozen(), case.input()
    with torch.no_grad():
        y = frozen(x)
        assert_close(y, layer(x), scale=10)
        reduced = case.frozen(case.bank_dtype)
        assert_close(reduced(x), stored(case, reduced), torch.float32, scale=10)
        assert_close(frozen.double()(x.double()), layer.double()(x.double()))


@given(cases())
def test_a_frozen_layer_of_another_dtype_is_its_twin(case: Case) -> None:
    x = case.input().bfloat16()
    layer = case.layer().bfloat16()
    with torch.no_grad():
        assert_close(freeze(layer, examples=case.input("contiguous", 1).bfloat16())(x), layer(x), scale=2)


@BOTH
def test_the_kernel_of_our_own_is_what_these_laws_are_about(case: Case) -> None:
    if native.why_not() is not None:
        pytest.skip(f"no kernels of our own here: {native.why_not()}")
    assert case.frozen().plan(case.input()).strategy == "frozen"


@given(cases())
def test_no_example_leaks_into_another(case: Case) -> None:
    frozen, x = case.frozen(), case.input("channels_last", batch=3)
    with torch.no_grad():
        before = frozen(x)
        x[1] = torch.randn_like(x[1]) * 100
        after = frozen(x)
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[2], after[2])


@given(cases())
def test_one_hot_routing_is_the_ordinary_convolution(case: Case) -> None:
    layer, frozen, x = case.layer(), case.frozen(), case.input()
    expert = case.seed % case.experts
    routing = F.one_hot(torch.full((len(x),), expert), case.experts).float()
    padded, geometry = resolve_padding(x, case.kernel, layer.geometry)
    with torch.no_grad():
        bias = None if layer.bias is None else layer.bias[expert]
        expected = F.conv2d(
            padded, layer.weight[expert], bias, geometry.stride, geometry.padding, geometry.dilation, case.groups
        )
        assert_close(frozen(x, routing), expected, scale=10)


@given(cases())
def test_linear_in_the_routing(case: Case) -> None:
    frozen, x = case.frozen(case.bank_dtype), case.input()
    one, two = torch.randn(2, len(x), case.experts).unbind()
    with torch.no_grad():
        assert_close(frozen(x, 2 * one - 3 * two), 2 * frozen(x, one) - 3 * frozen(x, two), scale=50)


@given(cases())
def test_nan_in_the_input_appears_as_in_the_twin(case: Case) -> None:
    layer, frozen, x = case.layer(), case.frozen(), case.input("contiguous", batch=3)
    routing = torch.rand(3, case.experts)
    x[1, 0, x.shape[2] // 2, x.shape[3] // 2] = float("nan")
    x[2, -1, 0, 0] = float("inf")
    with torch.no_grad():
        expected, y = layer(x, routing), frozen(lay_out(x, "channels_last"), routing)
    assert torch.equal(y[1].isnan(), expected[1].isnan())
    assert torch.equal(y[2].isfinite(), expected[2].isfinite())
    assert y[0].isfinite().all()


@BOTH
@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16])
def test_the_default_dtype_changes_nothing(case: Case, default: torch.dtype) -> None:
    frozen, x = case.frozen(), case.input()
    with torch.no_grad():
        expected = frozen(x)
        torch.set_default_dtype(default)
        try:
            y = frozen(x)
        finally:
            torch.set_default_dtype(torch.float32)
    assert y.dtype == torch.float32
    assert torch.equal(y, expected)


@BOTH
@pytest.mark.parametrize("batch", [1, 5])
def test_three_threads_compute_what_one_does(case: Case, batch: int) -> None:
    frozen, x = case.frozen(), case.input(batch=batch)
    with torch.no_grad():
        expected = frozen(x)
        torch.set_num_threads(3)
        try:
            y = frozen(x)
        finally:
            torch.set_num_threads(1)
    assert_close(y, expected)


@BOTH
def test_two_threads_in_one_network_do_not_meet(case: Case) -> None:
    network = freeze(nn.Sequential(case.layer(), nn.ReLU()), examples=case.input(batch=1))
    inputs = [case.input(batch=1), case.input(batch=1) * 2, case.input(batch=5)]
    with torch.no_grad():
        expected = [network(x) for x in inputs]
    wrong: list[int] = []

    def work(index: int) -> None:
        with torch.no_grad():
            ys = [network(inputs[index]) for _ in range(20)]
        wrong.extend(index for y in ys if not torch.equal(y, expected[index]))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def _run(frozen: nn.Module, x: Tensor, connection: Any) -> None:
    with torch.no_grad():
        connection.send_bytes(pickle.dumps(frozen(x).numpy()))


@BOTH
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system has no fork")
def test_after_a_fork(case: Case) -> None:
    frozen, x = case.frozen(), case.input()
    with torch.no_grad():
        expected = frozen(x)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_run, args=(frozen, x, theirs))
    child.start()
    try:
        assert ours.poll(100), "the child did not return"
        y = torch.from_numpy(pickle.loads(ours.recv_bytes()))
    finally:
        child.join(10)
        child.kill()
    assert torch.equal(y, expected)


@BOTH
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_compute_the_same_on_their_own(case: Case, copied: Callable[[nn.Module], nn.Module]) -> None:
    frozen, x = case.frozen(), case.input()
    with torch.no_grad():
        expected = frozen(x)
        made = copied(frozen)
        assert torch.equal(made(x), expected)
        made.bank.zero_()
        made.biases.zero_()
        assert not made(x).any()
        assert torch.equal(frozen(x), expected)


@BOTH
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")  # torch's own, in jvp
def test_forward_mode_derivatives_and_vmap_are_those_of_the_twin(case: Case) -> None:
    """What the kernel cannot do, it refuses, and an ordinary strategy goes on."""
    layer, frozen, x = case.layer(), case.frozen(), case.input()
    tangent = torch.randn_like(x)
    with torch.no_grad():
        expected = torch.func.jvp(layer, (x,), (tangent,))
        for want, have in zip(expected, torch.func.jvp(frozen, (x,), (tangent,)), strict=True):
            assert_close(have, want, scale=30)
        stack = torch.stack([x, x * 2])
        assert_close(torch.func.vmap(frozen)(stack), torch.stack([layer(each) for each in stack]), scale=30)
