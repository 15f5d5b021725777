"""Maps that stay in ONNX Runtime's blocked layout from layer to layer, through sums, gates and poolings.

Every layer of :mod:`~dynaconv.export.onnx_blocked` is written between two reorderings. Here those that undo each other
are dropped, and the nodes between two layers are written for maps in blocks.
"""

from __future__ import annotations

from typing import Any

from onnx import numpy_helper

from dynaconv.export.onnx_graph import Nodes, set_nodes, settings_of

DOMAIN = "com.microsoft.nchwc"
_ELEMENTWISE = ("Relu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "LeakyRelu")


def padded(channels: int, width: int) -> int:
    """The channels with those that fill the last block."""
    return -(-channels // width) * width


def keep_blocks(graph: Any, width: int) -> None:
    """Drop reorderings that undo each other: maps stay in blocks from layer to layer, through sums and poolings."""
    made = Nodes("dynaconv_blocks")
    shapes = {
        value.name: tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)
        for value in graph.value_info
    }
    while _pass(graph, width, made, shapes):
        pass
    graph.initializer.extend(made.constants)
    _drop_unread(graph)


def _pass(graph: Any, width: int, made: Nodes, shapes: dict[str, tuple[int, ...]]) -> bool:
    back = {node.output[0]: node for node in graph.node if node.op_type == "ReorderOutput"}
    nodes: list[Any] = []
    same: dict[str, str] = {}
    for node in graph.node:
        first, second = [back.get(name) for name in (*node.input, "", "")[:2]]
        begun = len(made.nodes)
        if node.op_type == "ReorderInput" and first is not None:
            same[node.output[0]] = first.input[0]
            continue
        y = node.output[0]
        gated = None if node.op_type != "Mul" else _gate(node, first, second, shapes, width)
        if gated is not None:
            _back(made, _gated(gated[0].input[0], gated[1], _channels(gated[0]), width, made), gated[0], y)
        elif first is not None and second is not None and _alike(node, shapes):
            if node.op_type in ("Add", "Mul"):
                _back(made, made.add(node.op_type, first.input[0], second.input[0]), first, y)
        elif first is not None and node.op_type in _ELEMENTWISE:
            _back(made, made.add(node.op_type, first.input[0], *node.input[1:], **settings_of(node)), first, y)
        elif first is not None and _is_pooling(node, graph):
            _pool(node, first, width, made)
        nodes += made.nodes[begun:] or [node]
    changed = len(nodes) != len(graph.node) or bool(same)
    set_nodes(graph, nodes)
    for node in graph.node:
        for number, name in enumerate(node.input):
            node.input[number] = same.get(name, name)
    return changed


def _back(made: Nodes, blocked: str, like: Any, to: str) -> None:
    made.add("ReorderOutput", blocked, to=to, domain=DOMAIN, channels=_channels(like))


def _alike(node: Any, shapes: dict[str, tuple[int, ...]]) -> bool:
    """Whether both inputs are maps of one shape: in blocks, others would be broadcast wrongly."""
    one, other = (shapes.get(name) for name in node.input[:2])
    return one is not None and one == other


def _gate(node: Any, first: Any, second: Any, shapes: dict[str, tuple[int, ...]], width: int) -> tuple[Any, str] | None:
    """The reordering behind a map, and the name of the numbers ``(1, C, 1, 1)`` that it is multiplied by."""
    for reorder, gate in ((first, node.input[1]), (second, node.input[0])):
        if reorder is not None and shapes.get(gate) == (1, _channels(reorder), 1, 1) and not _alike(node, shapes):
            return (reorder, gate) if _channels(reorder) % width == 0 else None
    return None


def _gated(blocked: str, gate: str, channels: int, width: int, made: Nodes) -> str:
    """A map times one number for each channel, as squeeze-and-excitation has it."""
    rows = made.add("Reshape", blocked, made.constant([channels // width, -1, width]))
    columns = made.add("Reshape", gate, made.constant([channels // width, 1, width]))
    return made.add("Reshape", made.add("Mul", rows, columns), made.add("Shape", blocked))


def _pool(node: Any, reorder: Any, width: int, made: Nodes) -> None:
    """The mean over the sides of a map; what follows reads as many channels as there are."""
    pooled = made.add("GlobalAveragePool", reorder.input[0], domain=DOMAIN)
    channels, y, sides = _channels(reorder), node.output[0], [1, 1] if _keeps_sides(node) else []
    filled = padded(channels, width)
    flat = made.add("Reshape", pooled, made.constant([1, filled, *sides]), to=y if filled == channels else None)
    if filled != channels:
        made.add("Slice", flat, made.constant([0]), made.constant([channels]), made.constant([1]), to=y)


def _channels(reorder: Any) -> int:
    return int(next(attribute.i for attribute in reorder.attribute if attribute.name == "channels"))


def _keeps_sides(node: Any) -> bool:
    return bool(next((attribute.i for attribute in node.attribute if attribute.name == "keepdims"), 1))


def _is_pooling(node: Any, graph: Any) -> bool:
    """A mean over both sides of the map."""
    if node.op_type != "ReduceMean" or len(node.input) < 2:
        return False
    axes = next((constant for constant in graph.initializer if constant.name == node.input[1]), None)
    return axes is not None and sorted(int(axis) % 4 for axis in numpy_helper.to_array(axes)) == [2, 3]


def _drop_unread(graph: Any) -> None:
    """Nodes whose outputs nobody reads any more, and constants."""
    wanted = {output.name for output in graph.output}
    kept: list[Any] = []
    for node in reversed(graph.node):
        if any(name in wanted for name in node.output):
            kept.append(node)
            wanted.update(node.input)
    set_nodes(graph, reversed(kept))
    constants = [constant for constant in graph.initializer if constant.name in wanted]
    copies = [type(constant).FromString(constant.SerializeToString()) for constant in constants]
    del graph.initializer[:]
    graph.initializer.extend(copies)
