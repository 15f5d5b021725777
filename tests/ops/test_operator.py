"""The strategy ``operator``: one node of an exported graph, equal to the reference; nobody but an exporter gets it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynaconv import DynamicConv2d, DynamicLinear
from dynaconv.ops import Geometry, convolve_each, plan_of
from dynaconv.ops.reference import reference_each
from dynaconv.ops.strategies.operator import as_operators
from laws.cases import cases, mixed
from tolerances import assert_close


@settings(max_examples=60)
@given(data=st.data())
def test_equals_the_reference(data: st.DataObject) -> None:
    case = data.draw(cases(dims=(1, 2, 3), batches=(1, 2, 3)))
    leaves = {name: leaf.detach() for name, leaf in case.tensors().items()}
    kernels, biases = mixed(leaves)
    with as_operators():
        y = case.run_each("operator", leaves)
    x = leaves["x"] if case.layout != "expanded" else torch.cat([leaves["x"][:1]] * case.batch)
    assert_close(y, reference_each(x, kernels, biases, case.geometry))


@pytest.mark.parametrize("transposed", [False, True])
def test_passes_opcheck(transposed: bool) -> None:
    x, kernels, biases = torch.randn(2, 4, 5, 6), torch.randn(2, 4, 2, 3, 2), torch.randn(2, 4)
    settings = [2, 1], [1, 0], [1, 2], 2, transposed, [1, 0] if transposed else [0, 0]
    arguments = (x, kernels, biases, *settings)
    torch.library.opcheck(torch.ops.dynaconv.convolve_each.default, arguments)


def test_is_for_exporters_alone() -> None:
    x, kernels = torch.randn(2, 3, 5, 5), torch.randn(2, 4, 3, 3, 3)
    with pytest.raises(ValueError, match="it is for graphs that an exporter writes"):
        convolve_each(x, kernels, geometry=Geometry(dims=2), strategy="operator")
    with as_operators():
        assert convolve_each(x, kernels, geometry=Geometry(dims=2), strategy="operator").shape == (2, 4, 3, 3)
        with pytest.raises(ValueError, match="it has no gradient"):
            convolve_each(x.requires_grad_(), kernels, geometry=Geometry(dims=2), strategy="operator")
        assert plan_of(x, kernels, torch.randn(2, 2), geometry=Geometry(dims=2)).strategy != "operator"


def test_exported_layers_are_one_node_and_linear_ones_a_product() -> None:
    model = torch.nn.Sequential(DynamicConv2d(4, 4, 3, padding=1, groups=4), torch.nn.Flatten(2), DynamicLinear(25, 3))
    batch = torch.export.Dim("batch", min=1)
    with torch.no_grad(), as_operators():
        program = torch.export.export(model.eval(), (torch.randn(3, 4, 5, 5),), dynamic_shapes=({0: batch},))
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert called.count("dynaconv.convolve_each.default") == 1
    for size in (1, 2, 5):
        x = torch.randn(size, 4, 5, 5)
        assert_close(program.module()(x), model(x))
