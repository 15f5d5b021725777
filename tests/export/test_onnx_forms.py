"""Every form of a dynamic convolution in ONNX equals the reference, over drawn geometries, in ONNX Runtime."""

from __future__ import annotations

import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from dynaconv.export import onnx_cost
from dynaconv.export.onnx_forms import replace
from dynaconv.export.onnx_layers import DOMAIN, OPERATOR
from dynaconv.ops import Geometry
from dynaconv.ops.geometry import resolve_padding
from dynaconv.ops.reference import reference_each
from laws.cases import Case, cases, mixed
from tolerances import assert_close


def graph_of(
    x: Tensor, kernels: Tensor, geometry: Geometry, *, biases: str | None = None, after: str | None = None
) -> onnx.ModelProto:
    """One ``ConvolveEach``, as the exporter makes it: with biases of every example or the same for all, and more."""
    out = kernels.shape[2] * geometry.groups if geometry.transposed else kernels.shape[1]
    floats = TensorProto.FLOAT
    space = [None] * geometry.dims
    inputs = [
        helper.make_tensor_value_info("images", floats, ["batch", x.shape[1], *space]),
        helper.make_tensor_value_info("kernels", floats, ["batch", *kernels.shape[1:]]),
    ]
    nodes, constants = [], []
    if biases == "each":
        inputs.append(helper.make_tensor_value_info("biases", floats, ["batch", out]))
    elif biases == "same":
        constants.append(numpy_helper.from_array(torch.linspace(-1, 1, out).numpy(), "bias"))
        nodes.append(helper.make_node("Shape", ["kernels"], ["number"], start=0, end=1))
        constants.append(numpy_helper.from_array(torch.tensor([out]).numpy(), "out"))
        nodes.append(helper.make_node("Concat", ["number", "out"], ["shape"], axis=0))
        nodes.append(helper.make_node("Expand", ["bias", "shape"], ["biases"]))
    nodes.append(
        helper.make_node(
            OPERATOR,
            ["images", "kernels", *["biases"] * (biases is not None)],
            ["y" if after is None else "z"],
            domain=DOMAIN,
            stride=geometry.stride,
            padding=geometry.padding,
            dilation=geometry.dilation,
            groups=geometry.groups,
            transposed=int(geometry.transposed),
            output_padding=geometry.output_padding,
        )
    )
    if after == "Clip":
        constants += [numpy_helper.from_array(torch.tensor(limit).numpy(), f"limit{limit}") for limit in (0.0, 6.0)]
    if after is not None:
        limits = ["limit0.0", "limit6.0"] if after == "Clip" else []
        nodes.append(helper.make_node(after, ["z", *limits], ["y"]))
    if after == "Sigmoid":  # another reader of the layer: its activation is no part of it
        nodes.append(helper.make_node("Identity", ["z"], ["also"]))
    y = helper.make_tensor_value_info("y", floats, ["batch", out, *space])
    graph = helper.make_graph(nodes, "layer", inputs, [y], constants)
    for value in inputs:
        graph.value_info.add().CopyFrom(value)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: onnx.ModelProto, **inputs: Tensor) -> Tensor:
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {name: value.numpy() for name, value in inputs.items()})[0])


AFTER = {None: lambda y: y, "Relu": torch.relu, "Clip": lambda y: y.clamp(0, 6), "Sigmoid": torch.sigmoid}


@pytest.mark.parametrize("form", ["single", "scan", "products"])
@settings(max_examples=40)
@given(data=st.data())
def test_equals_the_reference(form: str, data: st.DataObject) -> None:
    batches = (1,) if form == "single" else (1, 2, 3)
    case: Case = data.draw(cases(dims=(1, 2, 3), batches=batches, layouts=("contiguous",)))
    biases, after = data.draw(st.sampled_from([None, "each", "same"])), data.draw(st.sampled_from([*AFTER]))
    leaves = {name: leaf.detach() for name, leaf in case.tensors(torch.float32).items()}
    kernels = mixed(leaves)[0]
    x, geometry = resolve_padding(leaves["x"], case.kernel, case.geometry)
    out = kernels.shape[2] * geometry.groups if geometry.transposed else kernels.shape[1]
    generator = torch.Generator().manual_seed(case.seed)
    given_biases = torch.randn(case.batch, out, generator=generator) if biases == "each" else None
    used = torch.linspace(-1, 1, out).expand(case.batch, -1) if biases == "same" else given_biases
    expected = AFTER[after](
        reference_each(x.double(), kernels.double(), None if used is None else used.double(), geometry)
    )
    model = graph_of(x, kernels, geometry, biases=biases, after=after)
    replace(model.graph, form)
    assert not [node for node in model.graph.node if node.domain]
    inputs = {"images": x, "kernels": kernels} | ({} if given_biases is None else {"biases": given_biases})
    assert_close(run(model, **inputs), expected, torch.float32, scale=4)


@pytest.mark.parametrize("form", ["single", "scan", "products"])
@pytest.mark.parametrize(("groups", "kernel"), [(1, 3), (1, 1), (8, 3), (2, 3)])
def test_no_form_does_more_than_the_layers_multiply_adds(form: str, groups: int, kernel: int) -> None:
    x, kernels = torch.randn(1, 8, 9, 7), torch.randn(1, 8, 8 // groups, kernel, kernel)
    model = graph_of(x, kernels, Geometry(dims=2, padding=kernel // 2, groups=groups))
    replace(model.graph, form)
    for dimension in model.graph.input[1].type.tensor_type.shape.dim:
        dimension.dim_value = dimension.dim_value or 1
    assert onnx_cost.madds(model, (8, 9, 7)) == 9 * 7 * kernels.numel()


def test_an_unknown_form_is_an_error() -> None:
    model = graph_of(torch.randn(1, 2, 3, 3), torch.randn(1, 2, 2, 1, 1), Geometry(dims=2))
    with pytest.raises(ValueError, match="form is 'groups'; expected one of single, scan, products"):
        replace(model.graph, "groups")
