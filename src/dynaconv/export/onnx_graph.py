"""ONNX graphs: nodes that are being written, and what is looked up and exchanged in a graph."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto, TensorProto

_LARGEST = float(np.finfo(np.float32).max)


@dataclass
class Nodes:
    """Nodes and constants that are being written; names begin with ``prefix``."""

    prefix: str
    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def constant(self, values: Any, dtype: Any = np.int64) -> str:
        name = f"{self.prefix}/constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype=dtype), name))
        return name

    def cast(self, x: str, dtype: int) -> str:
        """``x`` as ``dtype`` (``TensorProto``'s)."""
        name = f"{self.prefix}/Cast_{len(self.nodes)}"
        self.nodes.append(helper.make_node("Cast", [x], [f"{name}:y"], name=name, to=dtype))
        return f"{name}:y"

    def add(self, kind: str, *inputs: str, to: str | None = None, **attributes: Any) -> str:
        name = f"{self.prefix}/{kind}_{len(self.nodes)}"
        made = to or f"{name}:y"
        self.nodes.append(helper.make_node(kind, list(inputs), [made], name=name, **attributes))
        return made


def set_nodes(graph: GraphProto, nodes: Iterable[NodeProto]) -> None:
    """Make these the nodes of a graph; some may be its own."""
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def settings_of(node: NodeProto) -> dict[str, Any]:
    """The attributes of a node by name."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def readers_of(graph: GraphProto) -> dict[str, list[NodeProto]]:
    """The nodes that read each value."""
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers


def activation_of(
    y: str, readers: dict[str, list[NodeProto]], outputs: set[str], constants: Any
) -> tuple[NodeProto, tuple[float, float] | None] | None:
    """The activation that alone reads ``y``, and the limits of a ``Clip``; or None."""
    following = readers.get(y, [])
    if len(following) != 1 or y in outputs or not _is_activation(following[0], constants):
        return None
    return following[0], _limits(following[0], constants)


def _is_activation(node: NodeProto, constants: Any) -> bool:
    return node.op_type == "Relu" or (
        node.op_type == "Clip" and all(name in constants for name in node.input[1:] if name)
    )


def _limits(node: NodeProto, constants: Any) -> tuple[float, float] | None:
    if node.op_type != "Clip":
        return None
    given = [*node.input[1:], "", ""][:2]
    low, high = (float(numpy_helper.to_array(constants[name])) if name else None for name in given)
    return -_LARGEST if low is None else low, _LARGEST if high is None else high


def over_examples(graph: GraphProto) -> None:
    """Give a graph for one image a free batch: ``Scan`` runs all of it for one image after the other.

    What reads constants alone (a reduced bank that is cast) stays outside, and is computed once.
    """
    image = graph.input[0]
    kind, (_, *shape) = image.type.tensor_type.elem_type, list(image.type.tensor_type.shape.dim)
    made, inner = Nodes("dynaconv_batch"), Nodes("dynaconv_batch/image")
    names = {image.name: f"{image.name}/one"} | {output.name: f"{output.name}/one" for output in graph.output}
    inner.add("Unsqueeze", f"{image.name}/inner", made.constant([0]), to=names[image.name])
    fixed = {constant.name for constant in graph.initializer}
    for node in graph.node:
        if node.input and fixed.issuperset(node.input):
            fixed.update(node.output)
            made.nodes.append(node)
            continue
        copy = type(node).FromString(node.SerializeToString())
        for several in (copy.input, copy.output):
            for number, name in enumerate(several):
                several[number] = names.get(name, name)
        inner.nodes.append(copy)
    example = helper.make_tensor_value_info(f"{image.name}/inner", kind, None)
    example.type.tensor_type.shape.dim.extend(shape)
    results = [
        helper.make_tensor_value_info(names[output.name], output.type.tensor_type.elem_type, None)
        for output in graph.output
    ]
    body = helper.make_graph(inner.nodes, "image", [example], results)
    steps = [f"{output.name}/steps" for output in graph.output]
    made.nodes.append(helper.make_node("Scan", [image.name], steps, name="images", body=body, num_scan_inputs=1))
    for output, several in zip(graph.output, steps, strict=True):
        made.add("Squeeze", several, made.constant([1]), to=output.name)
    set_nodes(graph, made.nodes)
    graph.initializer.extend(made.constants)
    for value in (image, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
