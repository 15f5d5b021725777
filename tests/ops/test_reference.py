"""The reference against other people's code: torch's layers an example at a time, timm's SAME convolution."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from dynaconv.ops import Geometry
from dynaconv.ops.reference import reference
from laws.cases import Case, cases
from laws.test_laws import ordinary_layer
from tolerances import assert_close

# torch's own layer warns that it copies its input there; ours pads without a warning.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")


def by_hand(case: Case, leaves: dict[str, Tensor]) -> Tensor:
    """Mix the kernels with einsum, then one torch layer for each example; differentiable in everything."""
    kernels = torch.einsum("bk,k...->b...", leaves["routing"], leaves["bank"])
    biases = torch.einsum("bk,ko->bo", leaves["routing"], leaves["bias"]) if case.bias else None
    outputs = []
    for index in range(case.batch):
        bias = None if biases is None else biases[index]
        layer = ordinary_layer(case, kernels[index], bias)
        weights = {"weight": kernels[index]} | ({} if bias is None else {"bias": bias})
        outputs.append(torch.func.functional_call(layer, weights, (leaves["x"][index : index + 1],)))
    return torch.cat(outputs)


@settings(max_examples=120)
@given(case=cases(batches=(1, 2, 3), layouts=("contiguous",)))
def test_is_one_torch_layer_per_example_with_gradients(case: Case) -> None:
    leaves = case.tensors()
    y = reference(leaves["x"], leaves["bank"], leaves["routing"], leaves.get("bias"), case.geometry)
    expected = by_hand(case, leaves)
    assert_close(y, expected, what="output")
    upstream = case.upstream(y)
    ours = torch.autograd.grad(y, list(leaves.values()), upstream)
    theirs = torch.autograd.grad(expected, list(leaves.values()), upstream)
    for name, actual, wanted in zip(leaves, ours, theirs, strict=True):
        assert_close(actual, wanted, scale=max(1.0, wanted.abs().max().item()), what=f"gradient of {name}")


@settings(max_examples=40)
@given(case=cases(batches=(0,), layouts=("contiguous",)))
def test_an_empty_batch_has_the_shape_that_torch_gives_it_and_gradients_of_zero(case: Case) -> None:
    leaves = case.tensors()
    y = reference(leaves["x"], leaves["bank"], leaves["routing"], leaves.get("bias"), case.geometry)
    layer = ordinary_layer(case, leaves["bank"][0], leaves["bias"][0] if case.bias else None)
    assert y.shape == layer(leaves["x"]).shape
    for name, gradient in zip(leaves, torch.autograd.grad(y.sum(), list(leaves.values())), strict=True):
        assert gradient.shape == leaves[name].shape
        assert not gradient.any()


@pytest.mark.parametrize("size", [(7, 8), (8, 9), (5, 12)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (3, 2)])
@pytest.mark.parametrize("kernel", [(1, 1), (2, 2), (3, 3), (5, 4)])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 1)])
def test_padding_same_is_that_of_timm(
    size: tuple[int, int], stride: tuple[int, int], kernel: tuple[int, int], dilation: tuple[int, int]
) -> None:
    same = pytest.importorskip("timm.layers").Conv2dSame
    theirs = same(4, 6, kernel, stride=stride, dilation=dilation, groups=2).double()
    x = torch.randn(2, 4, *size, dtype=torch.float64)
    geometry = Geometry(dims=2, stride=stride, padding="same", dilation=dilation, groups=2)
    one = torch.ones(2, 1, dtype=torch.float64)
    ours = reference(x, theirs.weight[None], one, theirs.bias[None], geometry)
    assert_close(ours, theirs(x))
