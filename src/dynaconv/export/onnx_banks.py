"""Reduced banks in an ONNX graph: stored as bfloat16, or as int8 with scales, and cast where they are read.

The nodes are ``Cast``, for int8 ``Mul`` by the scales, and ``Reshape``: every runtime has them. They read constants
alone, so a runtime may compute them once, when it loads the file (ONNX Runtime does): the file is smaller, and the
network computes with float32 numbers, as fast as before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, numpy_helper

from dynaconv.export.onnx_graph import Nodes, set_nodes

if TYPE_CHECKING:
    from onnx import GraphProto

DOMAIN, OPERATOR = "dynaconv", "BankValues"


@dataclass(frozen=True)
class Bank:
    """A constant bank.

    Attributes:
        stored: ``(K, out, n)`` in float32, bfloat16 or int8; or in a layout with the same experts.
        scale: of int8, ``(K, out, 1)``, or in that layout; else None.
    """

    stored: np.ndarray
    scale: np.ndarray | None = None

    def write(self, made: Nodes) -> str:
        """The nodes of its values, ``(K, everything else)`` in float32; returns their name."""
        flat = made.constant(self.stored.reshape(len(self.stored), -1), self.stored.dtype)
        if self.stored.dtype == np.float32:
            return flat
        scale = None if self.scale is None else made.constant(self.scale, np.float32)
        return _values(flat, scale, self.stored.shape, made)


def _values(flat: str, scale: str | None, shape: Sequence[int], made: Nodes, to: str | None = None) -> str:
    """``(K, everything else)`` as it is stored to its values.

    The scales are multiplied between two reshapes: ``Mul`` right behind ``Cast`` is what OpenVINO takes for another
    kind of compressed weights, and fails at.
    """
    values = made.cast(flat, TensorProto.FLOAT)
    if scale is not None:
        values = made.add("Mul", made.add("Reshape", values, made.constant(shape)), scale)
    return made.add("Reshape", values, made.constant([shape[0], -1]), to=to)


def bank_of(name: str, producers: dict[str, Any], constants: dict[str, Any], out: int) -> Bank | None:
    """The constant bank behind a value ``(K, out * n)``: a constant, or a ``BankValues`` of constants; or None."""
    node = producers.get(name)
    if name in constants:
        values = numpy_helper.to_array(constants[name])
        return Bank(values.reshape(len(values), out, -1))
    if node is None or (node.domain, node.op_type) != (DOMAIN, OPERATOR):
        return None
    return _read(node, constants)


def _read(node: Any, constants: dict[str, Any]) -> Bank:
    stored, *scale = (numpy_helper.to_array(constants[name]) for name in node.input if name)
    return Bank(stored, scale[0] if scale else None)


def replace_all(graph: GraphProto) -> int:
    """Write every ``BankValues`` as nodes; returns how many there were."""
    constants = {constant.name: constant for constant in graph.initializer}
    nodes: list[Any] = []
    count = 0
    for node in graph.node:
        if (node.domain, node.op_type) != (DOMAIN, OPERATOR):
            nodes.append(node)
            continue
        made = Nodes(f"dynaconv_bank_{count}")
        stored, scale = (*node.input, "")[:2]
        shape = list(constants[stored].dims)
        constants[stored].dims[:] = [shape[0], shape[1] * shape[2]]
        _values(stored, scale or None, shape, made, to=node.output[0])
        graph.initializer.extend(made.constants)
        nodes += made.nodes
        count += 1
    set_nodes(graph, nodes)
    return count
