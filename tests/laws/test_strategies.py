"""Every strategy equals the reference, outputs and every gradient; what it refuses, it refuses as written here.

What a strategy accepts is stated twice, in its file and in ``ACCEPTED`` below, and the two are held against each other
over drawn calls: a call that a strategy should run cannot turn into a refusal without a red test.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynaconv.ops import CHOICES, STRATEGIES, Geometry, mix
from dynaconv.ops.reference import reference
from laws.cases import LAYOUTS, Case, cases, lay_out, values_and_gradients
from tolerances import assert_close


def keeps_positions(case: Case) -> bool:
    geometry = case.geometry
    numbers = (*geometry.stride, *(size + 1 for size in geometry.output_padding))
    return not geometry.transposed or (all(size == 1 for size in numbers) and not any(geometry.padding))


# The documented refusals. An empty batch is answered by the reference, whatever was chosen.
ACCEPTED: dict[str, Callable[[Case], bool]] = {
    "auto": lambda case: True,
    "reference": lambda case: True,
    "single": lambda case: case.batch <= 1,
    "matmul": lambda case: case.batch == 0 or (all(size == 1 for size in case.kernel) and keeps_positions(case)),
    "loop": lambda case: True,
    "grouped": lambda case: case.batch == 0 or case.geometry.dims > 0,
    "branches": lambda case: True,
    "unfold": lambda case: case.batch == 0 or case.geometry.dims > 0,
}

REFUSALS = {
    "single": "the batch holds . examples",
    "matmul": "this form is for 1x1 and linear|does not keep its positions",
    "grouped": "a linear layer has no channels-first input",
    "unfold": "a linear layer has no patches",
}

# Draws that the strategy accepts, so that no example is thrown away.
FITTING: dict[str, dict[str, Any]] = {
    "auto": {},
    "reference": {},
    "single": {"batches": (0, 1, 1, 1)},
    "matmul": {"pointwise": True, "moved": False},
    "loop": {},
    "grouped": {"dims": (1, 2, 3)},
    "branches": {},
    "unfold": {"dims": (1, 2, 3)},
}

# Kernels of our own, which run on one kind of processor, in few precisions and layouts: their suites are their own.
ELSEWHERE = {
    "stencil": "tests/ops/test_stencil.py",
    "tiled": "tests/ops/test_tiled.py",
    "triton": "tests/kernels/cuda/test_triton.py",
}

EACH = pytest.mark.parametrize("strategy", [name for name in CHOICES if name not in ELSEWHERE])


def test_every_strategy_has_its_line_in_the_tables_of_this_file() -> None:
    assert set(ACCEPTED) == set(FITTING) == set(CHOICES) - set(ELSEWHERE)
    assert set(REFUSALS) == set(ACCEPTED) & set(STRATEGIES) - {"branches", "loop"}


@pytest.mark.parametrize("strategy", [name for name in CHOICES if name in ELSEWHERE])
def test_the_other_suites_are_there(strategy: str) -> None:
    assert (Path(__file__).parents[2] / ELSEWHERE[strategy]).is_file()


@EACH
@settings(max_examples=60)
@given(data=st.data())
def test_equals_the_reference_in_float64(strategy: str, data: st.DataObject) -> None:
    case = data.draw(cases(**FITTING[strategy]))
    leaves = case.tensors()
    expected = expected_values(case, leaves)
    actual = values_and_gradients(case, case.run(strategy, leaves), leaves)
    assert_all_close(actual, expected, torch.float64)


@EACH
@settings(max_examples=30)
@given(case=cases())
def test_refuses_what_it_documents_and_nothing_else(strategy: str, case: Case) -> None:
    leaves = case.tensors(torch.float32)
    if ACCEPTED[strategy](case):
        assert case.run(strategy, leaves).shape[0] == case.batch
    else:
        with pytest.raises(ValueError, match=REFUSALS[strategy]):
            case.run(strategy, leaves)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@EACH
@settings(max_examples=15)
@given(data=st.data())
def test_equals_the_reference_in_lower_precision(strategy: str, dtype: torch.dtype, data: st.DataObject) -> None:
    case = data.draw(cases(**FITTING[strategy]))
    leaves = case.tensors(dtype)
    wide = {name: leaf.detach().double().requires_grad_() for name, leaf in leaves.items()}
    y = case.run(strategy, leaves)
    assert y.dtype == dtype
    assert_all_close(values_and_gradients(case, y, leaves), expected_values(case, wide), dtype)


@EACH
@settings(max_examples=15)
@given(data=st.data())
def test_equals_the_reference_under_autocast(strategy: str, data: st.DataObject) -> None:
    case = data.draw(cases(**FITTING[strategy]))
    leaves = case.tensors(torch.float32)
    wide = {name: leaf.detach().double().requires_grad_() for name, leaf in leaves.items()}
    with torch.autocast("cpu", torch.bfloat16):
        y = case.run(strategy, leaves)
    if case.batch:
        assert y.dtype == torch.bfloat16
    actual = values_and_gradients(case, y, leaves)
    assert all(actual[f"gradient of {name}"].dtype == torch.float32 for name in leaves)
    assert_all_close(actual, expected_values(case, wide), torch.bfloat16)


def expected_values(case: Case, leaves: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What the reference answers for the same values, contiguous in memory (an expanded input repeats one example)."""
    x = leaves["x"]
    if case.layout == "expanded" and case.batch:
        x = torch.cat([x[:1]] * case.batch)
    y = reference(x, leaves["bank"], leaves["routing"], leaves.get("bias"), case.geometry)
    return values_and_gradients(case, y, leaves)


def assert_all_close(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], dtype: torch.dtype) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        # Each is a sum of many rounded terms of about unit size: its error grows with the largest sum, not with itself.
        scale = max(1.0, value.abs().max().item()) if value.numel() else 1.0
        assert_close(actual[name], value, dtype=dtype, scale=scale, what=name)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name not in ELSEWHERE])
def test_answers_no_input_in_other_memory_and_does_not_write_to_it(strategy: str, layout: str) -> None:
    geometry = Geometry(dims=2, padding=1, groups=2)
    kernel = 1 if strategy == "matmul" else 3
    x = lay_out(torch.randn(1, 4, 6, 5), layout)
    bank, routing, bias = torch.randn(3, 6, 2, kernel, kernel), torch.randn(1, 3), torch.randn(3, 6)
    before = [value.clone() for value in (x, bank, routing, bias)]
    y = mix(x, bank, routing, bias, geometry=geometry, strategy=strategy)
    y.fill_(7.0)  # an answer that shared memory with an argument would now have changed it
    for value, old in zip((x, bank, routing, bias), before, strict=True):
        assert torch.equal(value, old)


@EACH
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("kernel", [1, 3])
def test_second_derivatives(strategy: str, transposed: bool, kernel: int) -> None:
    """Gradient penalties and meta-learning differentiate twice."""
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
