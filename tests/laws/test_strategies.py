"""Every strategy equals the reference, outputs and every gradient; what it refuses, it refuses as written.

``laws/strategies.py`` has a line for each. Triton's kernels run here in its interpreter, in a process of their own.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import forward_ad

from dynaconv.ops import STRATEGIES, Geometry, convolve_each, mix, plan_of
from dynaconv.ops.reference import reference, reference_each
from laws.cases import LAYOUTS, Case, lay_out, mixed, values_and_gradients
from laws.strategies import C_KERNELS, EVERY, HERE, INTERPRETED, examples
from tolerances import assert_close

EACH = pytest.mark.parametrize("strategy", HERE)
BY_NAME = pytest.mark.parametrize("strategy", [name for name in HERE if name in STRATEGIES])
Leaves = dict[str, Tensor]


def wide(leaves: Leaves) -> Leaves:
    return {name: leaf.detach().double().requires_grad_() for name, leaf in leaves.items()}


def expected_values(case: Case, leaves: Leaves) -> Leaves:
    """The reference on the same values, contiguous in memory (an expanded input repeats one example)."""
    x = leaves["x"]
    if case.layout == "expanded" and case.batch:
        x = torch.cat([x[:1]] * case.batch)
    y = reference(x, leaves["bank"], leaves["routing"], leaves.get("bias"), case.geometry)
    return values_and_gradients(case, y, leaves)


def assert_all_close(actual: Leaves, expected: Leaves, dtype: torch.dtype) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        # Each is a sum of many rounded terms of about unit size: its error grows with the largest sum, not with itself.
        scale = max(1.0, value.abs().max().item()) if value.numel() else 1.0
        assert_close(actual[name], value, dtype=dtype, scale=4 * scale, what=name)


@EACH
@examples(60)
@given(data=st.data())
def test_equals_the_reference(strategy: str, data: st.DataObject) -> None:
    subject = EVERY[strategy]
    case = data.draw(subject.cases())
    leaves = case.tensors(subject.dtype)
    actual = values_and_gradients(case, case.run(strategy, leaves), leaves)
    assert_all_close(actual, expected_values(case, wide(leaves)), subject.dtype)


@pytest.mark.parametrize("strategy", [name for name in HERE if EVERY[name].each])
@examples(30)
@given(data=st.data())
def test_given_kernels_equal_the_reference(strategy: str, data: st.DataObject) -> None:
    subject = EVERY[strategy]
    case = data.draw(subject.cases(layouts=("contiguous", "channels_last", "strided")))
    leaves = case.tensors(subject.dtype)
    actual = values_and_gradients(case, case.run_each(strategy, leaves), leaves)
    assert_all_close(actual, expected_values(case, wide(leaves)), subject.dtype)


@pytest.mark.parametrize("strategy", [name for name in HERE if not EVERY[name].each])
def test_strategies_that_mix_the_kernels_refuse_given_ones(strategy: str) -> None:
    x, kernels = torch.randn(2, 3, 5, 5), torch.randn(2, 4, 3, 3, 3)
    with pytest.raises(ValueError, match="it mixes the kernels itself; this call brings them mixed"):
        convolve_each(x, kernels, geometry=Geometry(dims=2), strategy=strategy)


@EACH
@examples(30)
@given(data=st.data())
def test_refuses_what_it_documents_and_nothing_else(strategy: str, data: st.DataObject) -> None:
    from laws.cases import cases

    case, subject = data.draw(cases()), EVERY[strategy]
    leaves = case.tensors(torch.float32)
    if not case.batch or subject.accepts(case):
        assert case.run(strategy, leaves).shape[0] == case.batch
    else:
        with pytest.raises(ValueError, match=subject.refusal):
            case.run(strategy, leaves)


LOWER = (torch.float32, torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dtype", LOWER, ids=str)
@EACH
@examples(15)
@given(data=st.data())
def test_equals_the_reference_in_lower_precision(strategy: str, dtype: torch.dtype, data: st.DataObject) -> None:
    case = data.draw(EVERY[strategy].cases())
    leaves = case.tensors(dtype)
    if strategy in C_KERNELS and dtype != torch.float32 and case.batch:
        with pytest.raises(ValueError, match="it computes in float32 on a CPU"):
            case.run(strategy, leaves)
        return
    y = case.run(strategy, leaves)
    assert y.dtype == dtype
    assert_all_close(values_and_gradients(case, y, leaves), expected_values(case, wide(leaves)), dtype)


@EACH
@examples(15)
@given(data=st.data())
def test_equals_the_reference_under_autocast(strategy: str, data: st.DataObject) -> None:
    case = data.draw(EVERY[strategy].cases())
    leaves = case.tensors(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        if strategy in C_KERNELS and case.batch:
            with pytest.raises(ValueError, match="it computes in float32 on a CPU"):
                case.run(strategy, leaves)
            return
        y = case.run(strategy, leaves)
    if case.batch:
        assert y.dtype == torch.bfloat16
    actual = values_and_gradients(case, y, leaves)
    assert all(actual[f"gradient of {name}"].dtype == torch.float32 for name in leaves)
    assert_all_close(actual, expected_values(case, wide(leaves)), torch.bfloat16)


def call(strategy: str, dtype: torch.dtype, channels: int = 4) -> tuple[list[Tensor], Geometry]:
    """One small call that the strategy runs, in channels_last: x, bank, routing, bias."""
    subject = EVERY[strategy]
    groups = channels if subject.fitting.get("kind") == "depthwise" else 1
    kernel, batch = 1 if strategy == "matmul" else 3, 1 if strategy == "single" else 3
    x = torch.randn(batch, channels, 5, 6).to(memory_format=torch.channels_last)
    made = (
        x,
        torch.randn(2, channels, channels // groups, kernel, kernel),
        torch.randn(batch, 2),
        torch.randn(2, channels),
    )
    return [value.to(dtype) for value in made], Geometry(dims=2, padding=kernel // 2, groups=groups)


def all_from(x: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    """Bank, routing and bias that all depend on the input."""
    bank, routing, bias = leaves
    pooled = x.mean(dim=(2, 3))
    return [bank * (1 + pooled.mean()), torch.sigmoid(routing + pooled[:, :2]), bias + pooled.sum()]


def penalty(run: Callable[..., Tensor], leaves: list[Tensor]) -> list[Tensor]:
    """First derivatives, and the derivatives of their squares: gradient penalties and meta-learning need both."""
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    y = run(leaves[0], *all_from(leaves[0], leaves[1:]))
    first = torch.autograd.grad(y.square().sum(), leaves, create_graph=True)
    second = torch.autograd.grad(sum(each.square().sum() for each in first), leaves)
    return [*(each.detach() for each in first), *second]


@EACH
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_second_derivatives_with_everything_computed_from_the_input(strategy: str, layout: str) -> None:
    dtype = EVERY[strategy].dtype
    leaves, geometry = call(strategy, dtype)
    leaves[0] = lay_out(leaves[0], layout)
    actual = penalty(lambda *args: mix(*args, geometry=geometry, strategy=strategy), leaves)
    expected = penalty(lambda *args: reference(*args, geometry), [leaf.double() for leaf in leaves])
    for order, one, two in zip(("first",) * 4 + ("second",) * 4, actual, expected, strict=True):
        assert_close(one, two, dtype=dtype, scale=10 * max(1.0, two.abs().max().item()), what=f"{order} derivative")


@pytest.mark.skipif(INTERPRETED, reason="the interpreter's kernels are compared in float32 above")
@pytest.mark.parametrize("strategy", [name for name in HERE if EVERY[name].dtype == torch.float64])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("kernel", [1, 3])
def test_second_derivatives_against_finite_differences(strategy: str, transposed: bool, kernel: int) -> None:
    geometry = Geometry(dims=1, groups=2, transposed=transposed)
    batch = 1 if strategy == "single" else 2
    x, bank = torch.randn(batch, 4, 4, dtype=torch.float64), torch.randn(2, 4, 2, kernel, dtype=torch.float64)
    routing, bias = torch.randn(batch, 2, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    leaves = tuple(value.requires_grad_() for value in (x, bank, routing, bias))
    if strategy == "matmul" and kernel == 3:
        with pytest.raises(ValueError, match="this form is for 1x1"):
            mix(*leaves, geometry=geometry, strategy=strategy)
        return
    # The square makes the second derivative more than zero for every argument.
    run = lambda *args: mix(*args, geometry=geometry, strategy=strategy).square()  # noqa: E731
    assert torch.autograd.gradgradcheck(run, leaves, fast_mode=True)


@contextmanager
def refused_unless(runs: bool) -> Iterator[None]:
    if runs:
        yield
        return
    with pytest.raises(ValueError, match="transformed or watched"):
        yield


TRAINED = pytest.mark.parametrize("trained", [False, True])  # whether the tensors need gradients, as parameters do


@EACH
@TRAINED
def test_forward_mode_derivatives(strategy: str, trained: bool) -> None:
    dtype = EVERY[strategy].dtype
    leaves, geometry = call(strategy, dtype)
    leaves = [leaf.requires_grad_(trained) for leaf in leaves]
    tangents = [torch.randn_like(leaf) for leaf in leaves]

    def slope(run: Callable[..., Tensor], dtype: torch.dtype) -> Tensor:
        with warnings.catch_warnings(), forward_ad.dual_level():
            warnings.simplefilter("ignore")  # torch has no forward formula for some operations and says that it copies
            duals = [
                forward_ad.make_dual(leaf.to(dtype), tangent.to(dtype))
                for leaf, tangent in zip(leaves, tangents, strict=True)
            ]
            return forward_ad.unpack_dual(run(*duals)).tangent

    expected = slope(lambda *args: reference(*args, geometry), torch.float64)
    with refused_unless(EVERY[strategy].transformed):
        actual = slope(lambda *args: mix(*args, geometry=geometry, strategy=strategy), dtype)
        assert_close(actual, expected, dtype=dtype, scale=10)


@EACH
def test_batched_gradients(strategy: str) -> None:
    """``is_grads_batched``: many gradients of one output at once, as Jacobians are computed."""
    dtype = EVERY[strategy].dtype
    leaves, geometry = call(strategy, dtype)
    leaves = [leaf.requires_grad_() for leaf in leaves]
    y = mix(*leaves, geometry=geometry, strategy=strategy)
    upstream = torch.randn(3, *y.shape, dtype=dtype)
    many = torch.autograd.grad(y, leaves, upstream, is_grads_batched=True, retain_graph=True)
    for index, one in enumerate(upstream):
        for single, all_of_them in zip(torch.autograd.grad(y, leaves, one, retain_graph=True), many, strict=True):
            assert_close(all_of_them[index], single, dtype=dtype, scale=10)


@EACH
@TRAINED
def test_vmap_over_routing_weights(strategy: str, trained: bool) -> None:
    dtype = EVERY[strategy].dtype
    (x, bank, routing, bias), geometry = call(strategy, dtype)
    bank.requires_grad_(trained)
    several = torch.randn(2, *routing.shape, dtype=dtype)
    run = lambda routing: mix(x, bank, routing, bias, geometry=geometry, strategy=strategy)  # noqa: E731
    with refused_unless(EVERY[strategy].transformed):
        actual = torch.vmap(run)(several)
        assert_close(actual, torch.stack([run(one) for one in several]), dtype=dtype, scale=10)


@EACH
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_vmap_over_inputs(strategy: str, layout: str) -> None:
    dtype = EVERY[strategy].dtype
    (x, bank, routing, bias), geometry = call(strategy, dtype)
    several = lay_out(torch.randn(2 * x.shape[0], *x.shape[1:], dtype=dtype), layout).unflatten(0, (2, -1))
    run = lambda x: mix(x, bank, routing, bias, geometry=geometry, strategy=strategy)  # noqa: E731
    with refused_unless(EVERY[strategy].transformed):
        actual = torch.vmap(run)(several)
        assert_close(actual, torch.stack([run(one) for one in several]), dtype=dtype, scale=10)


@EACH
def test_different_dtypes_are_an_error_that_names_them(strategy: str) -> None:
    (x, bank, routing, bias), geometry = call(strategy, torch.float32)
    run = lambda *args: mix(*args, geometry=geometry, strategy=strategy)  # noqa: E731
    for other in (torch.float64, torch.bfloat16, torch.float16):
        with pytest.raises(TypeError, match=f"input is torch.float32, bank is {other}"):
            run(x, bank.to(other), routing)
        with pytest.raises(TypeError, match=f"input is {other}, bank is torch.float32"):
            run(x.to(other), bank, routing)
        with pytest.raises(TypeError, match=f"bank is torch.float32 and bias is {other}"):
            run(x, bank, routing, bias.to(other))
        # A router computes in float32 whatever the layer does: routing weights are converted.
        assert_close(run(x, bank, routing.to(other)), run(x, bank, routing.to(other).float()), dtype=other)


@EACH
@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16], ids=str)
def test_the_default_dtype_changes_nothing(strategy: str, default: torch.dtype) -> None:
    leaves, geometry = call(strategy, torch.float32)
    expected = penalty(lambda *args: mix(*args, geometry=geometry, strategy=strategy), leaves)
    torch.set_default_dtype(default)
    try:
        actual = penalty(lambda *args: mix(*args, geometry=geometry, strategy=strategy), leaves)
    finally:
        torch.set_default_dtype(torch.float32)
    for one, two in zip(actual, expected, strict=True):
        assert one.dtype == torch.float32
        assert_close(one, two, scale=max(1.0, two.abs().max().item()))


@EACH
def test_threads_and_a_fork_change_nothing(strategy: str) -> None:
    leaves, geometry = call(strategy, torch.float32, channels=5 if INTERPRETED else 65)
    leaves = [leaf.requires_grad_() for leaf in leaves]

    def values() -> list[Tensor]:
        y = mix(*leaves, geometry=geometry, strategy=strategy)
        return [y, *torch.autograd.grad(y.square().sum(), leaves)]

    expected = values()
    torch.set_num_threads(3)
    try:
        several = values()
    finally:
        torch.set_num_threads(1)
    for one, two in zip(several, expected, strict=True):
        assert_close(one, two, scale=max(1.0, two.abs().max().item()))
    # Forward only: torch itself runs no backward pass in a fork of a process that has run one in threads.
    run = lambda: mix(*leaves, geometry=geometry, strategy=strategy)  # noqa: E731
    assert in_a_fork(lambda: torch.equal(run(), expected[0]))


def in_a_fork(check: Callable[[], bool]) -> bool:
    """Whether the check holds in a child process with one thread."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, which is what is tested
        child = os.fork()
    if not child:
        code = 1
        try:
            torch.set_num_threads(1)
            with torch.no_grad():
                code = 0 if check() else 1
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("layout", LAYOUTS)
@BY_NAME
def test_returns_no_input_in_other_memory_and_does_not_write_to_it(strategy: str, layout: str) -> None:
    (x, bank, routing, bias), geometry = call(strategy, torch.float32)
    x = lay_out(x, layout)
    before = [value.clone() for value in (x, bank, routing, bias)]
    y = mix(x, bank, routing, bias, geometry=geometry, strategy=strategy)
    y.fill_(7.0)  # an output that shared memory with an argument would now have changed it
    for value, old in zip((x, bank, routing, bias), before, strict=True):
        assert torch.equal(value, old)


@pytest.mark.skipif("tiled" not in HERE, reason="no C kernels here")
@pytest.mark.parametrize("strategy", C_KERNELS)
def test_a_c_kernel_returns_the_layout_of_its_input(strategy: str) -> None:
    (x, bank, routing, bias), geometry = call(strategy, torch.float32)
    y = mix(x, bank, routing, bias, geometry=geometry, strategy=strategy)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert mix(x.contiguous(), bank, routing, bias, geometry=geometry, strategy=strategy).is_contiguous()


@BY_NAME
def test_nan_and_infinity_stay_where_they_are(strategy: str) -> None:
    (x, bank, routing, bias), geometry = call(strategy, torch.float32)
    clean = mix(x, bank, routing, bias, geometry=geometry, strategy=strategy)
    x[0, 0, 0, 0] = float("nan")
    y = mix(x, bank, routing, bias, geometry=geometry, strategy=strategy)
    expected = reference_each(x, *mixed({"routing": routing, "bank": bank, "bias": bias}), geometry)
    assert torch.equal(y.isnan(), expected.isnan())
    assert_close(y[~y.isnan()], clean[~y.isnan()], scale=4)


@pytest.mark.skipif(INTERPRETED, reason="the plan is the same")
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("groups", [1, 16])
def test_the_plan_steps_aside_for_what_a_strategy_cannot_do(layout: str, groups: int) -> None:
    x = lay_out(torch.randn(16, 16, 6, 6), layout)
    bank, routing = torch.randn(2, 16, 16 // groups, 3, 3), torch.rand(16, 2)
    geometry: Any = Geometry(dims=2, padding=1, groups=groups)
    usual = plan_of(x, bank, routing, geometry=geometry).strategy
    own = set(C_KERNELS)
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore")
        assert plan_of(forward_ad.make_dual(x, x), bank, routing, geometry=geometry).strategy not in own
    with torch.autocast("cpu", torch.bfloat16):
        assert plan_of(x, bank, routing, geometry=geometry).strategy not in own
    assert (usual in own) == (groups == 1 or layout == "channels_last")


@pytest.mark.skipif(INTERPRETED, reason="Triton is not for this device")
@BY_NAME
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_default_device_changes_nothing(strategy: str, device: str) -> None:
    leaves, geometry = call(strategy, torch.float32)
    expected = penalty(lambda *args: mix(*args, geometry=geometry, strategy=strategy), leaves)
    with torch.device(device):
        actual = penalty(lambda *args: mix(*args, geometry=geometry, strategy=strategy), leaves)
    for one, two in zip(actual, expected, strict=True):
        assert one.device.type == "cpu"
        assert torch.equal(one, two)
