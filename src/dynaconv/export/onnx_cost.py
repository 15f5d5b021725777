"""The multiply-adds of an ONNX graph, for one image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import helper, numpy_helper, shape_inference

Shape = tuple[int, ...]
_AXIS = "dynaconv_cost/axis"
_COUNTED = ("Conv", "ConvTranspose", "MatMul", "Gemm")


def madds(model: Any, input_size: Shape) -> float | None:
    """Multiply-adds of convolutions and matrix products for one image ``(C, H, W)``.

    Shapes that cannot be inferred are read from a run. None if ONNX Runtime does not run it.
    """
    fixed = type(model).FromString(model.SerializeToString())
    graph = fixed.graph
    nodes = [type(node).FromString(node.SerializeToString()) for node in _unrolled(graph.node)]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.append(numpy_helper.from_array(np.array([0]), _AXIS))
    for dimension, size in zip(graph.input[0].type.tensor_type.shape.dim, (1, *input_size), strict=True):
        dimension.dim_value = size
    for output in graph.output:
        output.type.tensor_type.ClearField("shape")
    inferred = shape_inference.infer_shapes(fixed, data_prop=True).graph
    shapes = {constant.name: tuple(constant.dims) for constant in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(dimension.HasField("dim_value") for dimension in tensor.shape.dim):
            shapes[value.name] = tuple(dimension.dim_value for dimension in tensor.shape.dim)
    counted = [node for node in inferred.node if node.op_type in _COUNTED]
    unknown = {name for node in counted for name in (*node.input[:2], node.output[0]) if name not in shapes}
    try:
        shapes |= _measured(fixed, sorted(unknown), (1, *input_size))
    except Exception:  # ONNX Runtime has a class of its own for every failure; whether the file runs is checked apart
        return None
    return float(sum(_node_madds(node, shapes) for node in counted))


def _measured(model: Any, names: list[str], input_shape: Shape) -> dict[str, Shape]:
    """The shapes of some values in a run of the model."""
    if not names:
        return {}
    import onnxruntime

    del model.graph.output[:]
    for name in names:
        model.graph.output.add().name = name
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kind = np.uint8 if session.get_inputs()[0].type == "tensor(uint8)" else np.float32
    made = session.run(names, {model.graph.input[0].name: np.zeros(input_shape, kind)})
    return {name: tuple(array.shape) for name, array in zip(names, made, strict=True)}


def _unrolled(nodes: Any) -> Iterator[Any]:
    """The nodes with the body of every ``Scan`` in its place: for one image it has one step."""
    for node in nodes:
        if node.op_type != "Scan":
            yield node
            continue
        body = next(attribute.g for attribute in node.attribute if attribute.name == "body")
        for outer, inner in zip(node.input, body.input, strict=True):
            yield helper.make_node("Squeeze", [outer, _AXIS], [inner.name])
        yield from body.node
        for outer, inner in zip(node.output, body.output, strict=True):
            yield helper.make_node("Unsqueeze", [inner.name, _AXIS], [outer])


def _node_madds(node: Any, shapes: dict[str, Shape]) -> float:
    kind = node.op_type
    first, second, y = shapes[node.input[0]], shapes[node.input[1]], shapes[node.output[0]]
    if kind == "ConvTranspose":
        return float(math.prod(first) * math.prod(second[1:]))
    if kind == "Conv":
        return float(math.prod(y) * math.prod(second[1:]))
    turned = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return float(math.prod(y) * (first[0] if turned else first[-1]))
