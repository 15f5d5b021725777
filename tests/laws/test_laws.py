"""Laws of the mixing operation, over every strategy: what must hold whatever the numbers are."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dynaconv.ops import Geometry, mix
from laws.cases import Case, values_and_gradients
from laws.strategies import EVERY, HERE, examples
from tolerances import assert_close

# torch's own layer warns that it copies its input there; ours pads without a warning.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")

EACH = pytest.mark.parametrize("strategy", HERE)
# "single" holds one example by definition: no other example is there to meddle, and nothing to put together.
SEVERAL = pytest.mark.parametrize("strategy", [name for name in HERE if name != "single"])


def several(strategy: str, **more: Any) -> st.SearchStrategy[Case]:
    return EVERY[strategy].cases(**{"batches": (2, 3), "layouts": ("contiguous", "channels_last"), **more})


@SEVERAL
@examples(15)
@given(data=st.data())
def test_no_example_leaks_into_another(strategy: str, data: st.DataObject) -> None:
    case = data.draw(several(strategy))
    leaves = case.tensors(EVERY[strategy].dtype)
    y = case.run(strategy, leaves)
    own = torch.autograd.grad(y[0].sum(), [leaves["x"], leaves["routing"]])
    for gradient in own:
        assert torch.equal(gradient[1:], torch.zeros_like(gradient[1:]))
    spoilt = {name: leaf.detach().clone() for name, leaf in leaves.items()}
    spoilt["x"][1:] = float("nan")
    spoilt["routing"][1:] = float("nan")
    assert_close(case.run(strategy, spoilt)[0], y[0], what="the first example beside examples that are not numbers")


@EACH
@examples(20)
@given(data=st.data())
def test_one_hot_routing_is_the_ordinary_layer_of_torch(strategy: str, data: st.DataObject) -> None:
    case = data.draw(EVERY[strategy].cases(layouts=("contiguous",)))
    leaves = case.tensors(EVERY[strategy].dtype)
    chosen = [index % case.experts for index in range(case.batch)]
    leaves["routing"] = torch.eye(case.experts, dtype=EVERY[strategy].dtype)[torch.tensor(chosen, dtype=torch.long)]
    y = case.run(strategy, leaves)
    for index, expert in enumerate(chosen):
        bias = leaves["bias"][expert] if case.bias else None
        expected = ordinary_layer(case, leaves["bank"][expert], bias)(leaves["x"][index : index + 1])
        assert_close(y[index : index + 1], expected, what=f"example {index} with expert {expert}")
    if not case.batch:
        empty = ordinary_layer(case, leaves["bank"][0], leaves["bias"][0] if case.bias else None)(leaves["x"])
        assert y.shape == empty.shape


@EACH
@examples(15)
@given(data=st.data())
def test_linear_in_the_routing(strategy: str, data: st.DataObject) -> None:
    case = data.draw(EVERY[strategy].cases())
    leaves = case.tensors(EVERY[strategy].dtype)
    first, second = leaves["routing"], torch.randn_like(leaves["routing"])
    output = lambda routing: case.run(strategy, {**leaves, "routing": routing})  # noqa: E731
    assert_close(output(3.0 * first - 0.5 * second), 3.0 * output(first) - 0.5 * output(second), scale=10)


@EACH
@examples(15)
@given(data=st.data())
def test_permuting_experts_with_their_routing_changes_nothing(strategy: str, data: st.DataObject) -> None:
    case = data.draw(EVERY[strategy].cases())
    leaves = case.tensors(EVERY[strategy].dtype)
    order = torch.randperm(case.experts)
    permuted = {**leaves, "bank": leaves["bank"][order], "routing": leaves["routing"][:, order]}
    if case.bias:
        permuted["bias"] = leaves["bias"][order]
    assert_close(case.run(strategy, permuted), case.run(strategy, leaves))


@EACH
@examples(15)
@given(data=st.data())
def test_equal_experts_with_routing_that_sums_to_one_are_the_static_layer(strategy: str, data: st.DataObject) -> None:
    case = data.draw(EVERY[strategy].cases(layouts=("contiguous",)))
    leaves = case.tensors(EVERY[strategy].dtype)
    leaves["bank"] = leaves["bank"][:1].expand_as(leaves["bank"])
    if case.bias:
        leaves["bias"] = leaves["bias"][:1].expand_as(leaves["bias"])
    leaves["routing"] = leaves["routing"].softmax(dim=1)
    static = ordinary_layer(case, leaves["bank"][0], leaves["bias"][0] if case.bias else None)
    assert_close(case.run(strategy, leaves), static(leaves["x"]))


@SEVERAL
@examples(15)
@given(data=st.data())
def test_examples_put_together_are_computed_as_if_alone(strategy: str, data: st.DataObject) -> None:
    case = data.draw(several(strategy))
    leaves = case.tensors(EVERY[strategy].dtype)
    together = case.run(strategy, leaves)
    alone = [
        case.run(strategy, {**leaves, "x": leaves["x"][i : i + 1], "routing": leaves["routing"][i : i + 1]})
        for i in range(case.batch)
    ]
    assert_close(together, torch.cat(alone))
    order = torch.randperm(case.batch)
    shuffled = case.run(strategy, {**leaves, "x": leaves["x"][order], "routing": leaves["routing"][order]})
    assert_close(shuffled, together[order])


@EACH
@examples(25)
@given(data=st.data())
def test_what_follows_may_work_in_place(strategy: str, data: st.DataObject) -> None:
    """``nn.ReLU(inplace=True)`` right after the layer, as in VGG. torch refuses it for a view that an operator made."""
    case = data.draw(EVERY[strategy].cases())
    leaves = case.tensors(EVERY[strategy].dtype)
    expected = values_and_gradients(case, case.run(strategy, leaves).relu(), leaves)
    actual = values_and_gradients(case, case.run(strategy, leaves).relu_(), leaves)
    for name, value in expected.items():
        assert torch.equal(actual[name], value), name


@EACH
@examples(25)
@given(data=st.data())
def test_in_place_beside_what_has_no_gradient(strategy: str, data: st.DataObject) -> None:
    """A trained adapter added to the output of a layer that is not trained; and a reentrant checkpoint.

    torch refuses both for a view that was made where gradients are not recorded.
    """
    case = data.draw(EVERY[strategy].cases())
    leaves = case.tensors(EVERY[strategy].dtype)
    for run in (case.run, case.run_each) if EVERY[strategy].each else (case.run,):
        with torch.no_grad():
            y = run(strategy, leaves)
        adapter = torch.ones_like(y, requires_grad=True)
        expected = y + adapter
        y += adapter
        assert torch.equal(y, expected)
    x = leaves.pop("x")
    again = checkpoint(lambda x: case.run(strategy, {**leaves, "x": x}), x, use_reentrant=True)
    assert torch.equal(again.relu_(), case.run(strategy, {**leaves, "x": x}).relu())


def test_a_batch_of_one_of_the_strategy_single_is_that_example_of_a_larger_batch() -> None:
    geometry = Geometry(dims=2, stride=2, padding=1, groups=2)
    x, bank = torch.randn(3, 4, 7, 6, dtype=torch.float64), torch.randn(3, 2, 2, 3, 2, dtype=torch.float64)
    routing, bias = torch.randn(3, 3, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    together = mix(x, bank, routing, bias, geometry=geometry, strategy="grouped")
    for i in range(3):
        alone = mix(x[i : i + 1], bank, routing[i : i + 1], bias, geometry=geometry, strategy="single")
        assert_close(alone, together[i : i + 1])


def ordinary_layer(case: Case, kernel: Tensor, bias: Tensor | None) -> nn.Module:
    """The layer that people would write without this library, with the given weights."""
    geometry, dims = case.geometry, case.geometry.dims
    shared = {"bias": bias is not None, "dtype": kernel.dtype}
    if dims == 0:
        layer: nn.Module = nn.Linear(case.inputs, case.outputs, **shared)
    elif geometry.transposed:
        layer = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[dims - 1](
            case.inputs,
            case.outputs,
            case.kernel,
            geometry.stride,
            geometry.padding,
            geometry.output_padding,
            geometry.groups,
            dilation=geometry.dilation,
            **shared,
        )
    else:
        strided_same = geometry.padding == "same" and any(stride > 1 for stride in geometry.stride)
        layer = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1](
            case.inputs,
            case.outputs,
            case.kernel,
            geometry.stride,
            0 if strided_same else geometry.padding,
            geometry.dilation,
            geometry.groups,
            padding_mode="zeros" if strided_same else geometry.padding_mode,
            **shared,
        )
        if strided_same:
            pad = functools.partial(pad_as_tensorflow, case)
            layer.register_forward_pre_hook(lambda module, args: pad(args[0]))
    layer.weight.data.copy_(kernel.detach())
    if bias is not None:
        layer.bias.data.copy_(bias.detach())
    return layer


def pad_as_tensorflow(case: Case, x: Tensor) -> Tensor:
    """TensorFlow's SAME by its definition: windows start at every ``stride``-th position, the pad is split evenly."""
    mode = "constant" if case.geometry.padding_mode == "zeros" else case.geometry.padding_mode
    flat: list[int] = []
    for axis in reversed(range(case.geometry.dims)):
        length, stride = case.space[axis], case.geometry.stride[axis]
        reach = case.geometry.dilation[axis] * (case.kernel[axis] - 1)
        windows = len(range(0, length, stride))
        missing = reach if stride == 1 else max(0, (windows - 1) * stride + reach + 1 - length)
        flat += [missing // 2, missing - missing // 2]
    return nn.functional.pad(x, flat, mode=mode)
