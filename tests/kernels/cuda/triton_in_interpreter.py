"""Tests of strategy ``triton`` on a CPU: run by test_triton.py with ``TRITON_INTERPRET=1``, and by hand::

    TRITON_INTERPRET=1 python -m pytest tests/kernels/cuda/triton_in_interpreter.py

Their own process, as Triton reads that variable when it is imported; their file's name keeps pytest from collecting
them elsewhere.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dynaconv import DynamicConv2d
from dynaconv.ops import Geometry, mix, plan_of
from kernels.cuda.triton_cases import BROKEN, PARTLY, QUICK, THOROUGH, TritonCase, assert_near, check


def refuses_to_loop() -> bool:
    """Triton 3.6 turns arrays of one number into integers, of which numpy 2.3 warns and which numpy 2.4 refuses."""
    try:
        mix(torch.zeros(1, 1), torch.zeros(1, 1, 1), torch.zeros(1, 1), geometry=Geometry(dims=0), strategy="triton")
    except Exception as error:
        return "only 0-dimensional arrays can be converted" in str(error) or "ndim > 0 to a scalar" in str(error)
    return False


if refuses_to_loop():
    pytest.skip(BROKEN, allow_module_level=True)


@pytest.mark.parametrize("case", QUICK, ids=str)
def test_equals_the_reference(case: TritonCase) -> None:
    check(case, torch.float32, "cpu")


@pytest.mark.parametrize("case", [QUICK[0], QUICK[5]], ids=str)
def test_equals_the_reference_in_bfloat16(case: TritonCase) -> None:
    check(case, torch.bfloat16, "cpu")


@pytest.mark.parametrize("case", PARTLY, ids=str)
def test_gives_the_gradients_that_are_needed(case: TritonCase) -> None:
    check(case, torch.float32, "cpu")


@pytest.mark.slow
@pytest.mark.parametrize("case", THOROUGH, ids=str)
def test_equals_the_reference_in_every_layout_and_option(case: TritonCase) -> None:
    check(case, torch.float32, "cpu")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", QUICK + THOROUGH, ids=str)
def test_equals_the_reference_in_half_precision(case: TritonCase, dtype: torch.dtype) -> None:
    check(case, dtype, "cpu")


def test_routing_in_float32_beside_inputs_in_bfloat16() -> None:
    made = QUICK[2].tensors(torch.bfloat16)
    routing = made["routing"].float().requires_grad_()
    y = mix(made["x"], made["bank"], routing, made["bias"], geometry=QUICK[2].geometry, strategy="triton")
    wide = routing.detach().double().requires_grad_()
    expected = mix(made["x"].double(), made["bank"].double(), wide, made["bias"].double(), geometry=QUICK[2].geometry)
    assert_near(y, expected, torch.bfloat16, "output")
    y.float().sum().backward()
    expected.sum().backward()
    assert routing.grad is not None
    assert routing.grad.dtype == torch.float32
    assert_near(routing.grad, wide.grad, torch.bfloat16, "gradient of routing")


def test_autocast_returns_its_own_dtype_and_gradients_in_theirs() -> None:
    case = QUICK[5]
    leaves = {name: value.requires_grad_() for name, value in case.tensors(torch.float32).items()}
    wide = {name: value.detach().double().requires_grad_() for name, value in leaves.items()}
    with torch.autocast("cpu", torch.bfloat16):
        y = mix(*leaves.values(), geometry=case.geometry, strategy="triton")
    expected = mix(*wide.values(), geometry=case.geometry)
    assert y.dtype == torch.bfloat16
    assert_near(y, expected, torch.bfloat16, "output")
    upstream = torch.randn_like(expected)
    actual = torch.autograd.grad(y, list(leaves.values()), upstream.to(y.dtype))
    for name, mine, theirs in zip(
        leaves, actual, torch.autograd.grad(expected, list(wide.values()), upstream), strict=True
    ):
        assert mine.dtype == torch.float32
        assert_near(mine, theirs, torch.bfloat16, f"gradient of {name}")


@pytest.mark.parametrize("case", [QUICK[1], QUICK[6]], ids=str)
def test_second_derivatives_are_right_where_routing_depends_on_the_input(case: TritonCase) -> None:
    def penalty(strategy: str, dtype: torch.dtype) -> list[Tensor]:
        torch.manual_seed(0)
        leaves = {name: value.to(dtype).requires_grad_() for name, value in case.tensors(torch.float32).items()}
        mean = leaves["x"].mean(dim=(1, 2, 3))[:, None]
        routing = torch.sigmoid(leaves["routing"] + mean)
        y = mix(leaves["x"], leaves["bank"], routing, leaves["bias"], geometry=case.geometry, strategy=strategy)
        (slope,) = torch.autograd.grad(y.square().sum(), leaves["x"], create_graph=True)
        return list(torch.autograd.grad(slope.square().sum(), list(leaves.values())))

    for name, mine, theirs in zip(
        ("x", "bank", "routing", "bias"), penalty("triton", torch.float32), penalty("loop", torch.float64), strict=True
    ):
        assert_near(mine, theirs, torch.float32, f"second derivative by {name}")


@pytest.mark.parametrize("case", [QUICK[1], pytest.param(QUICK[5], marks=pytest.mark.slow)], ids=str)
def test_is_an_operator_that_torch_can_trace(case: TritonCase) -> None:
    leaves = [value.requires_grad_() for value in case.tensors(torch.float32).values()]
    geometry = case.geometry
    move = list(geometry.stride), list(geometry.padding), list(geometry.dilation), geometry.groups
    with torch.no_grad():
        leaves[0] = leaves[0].contiguous(memory_format=torch.channels_last)
    torch.library.opcheck(torch.ops.dynaconv.triton_mix.default, (*[leaf.detach() for leaf in leaves], *move))
    torch.library.opcheck(
        torch.ops.dynaconv.triton_mix.default,
        (*[leaf.detach().requires_grad_() for leaf in leaves], *move),
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )


@pytest.mark.slow
def test_a_layer_compiles_into_one_graph_and_trains() -> None:
    layer = DynamicConv2d(3, 4, 1, strategy="triton")
    x = torch.randn(2, 3, 4, 5)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for model in (layer, compiled):
        model(x).square().sum().backward()
    wanted = [parameter.grad.clone() for parameter in layer.parameters()]
    layer.zero_grad()
    layer(x).square().sum().backward()
    for parameter, twice in zip(layer.parameters(), wanted, strict=True):
        assert_near(twice, 2 * parameter.grad, torch.float32, "gradient, once eager and once compiled")


def test_input_and_bank_of_different_dtypes_are_named() -> None:
    x, bank = torch.zeros(2, 4), torch.zeros(3, 6, 4, dtype=torch.bfloat16)
    with pytest.raises(TypeError, match=r"input is torch.float32, bank is torch.bfloat16; .* torch.autocast"):
        mix(x, bank, torch.zeros(2, 3), geometry=Geometry(dims=0), strategy="triton")


def test_is_possible_and_not_chosen_unasked() -> None:
    plan = plan_of(torch.zeros(2, 4), torch.zeros(3, 6, 4), torch.zeros(2, 3), geometry=Geometry(dims=0))
    assert plan.strategy == "matmul"
    assert plan.others["triton"] == "possible, but not measured on a GPU; ask for it by name"
