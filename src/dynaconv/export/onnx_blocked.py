"""Dynamic convolutions by ONNX Runtime's own operators for a blocked layout, whose kernels are mixed in that layout.

ONNX Runtime runs a static network in a blocked layout ("NCHWc"): the channels in blocks of 8 or 16 numbers, as wide as
the processor's vectors. It brings the constant kernels into that layout when it loads a file; kernels that are mixed in
the graph it cannot, and runs them two to six times slower, depthwise ones above all. Here the *bank* is stored in
that layout, so that every mixture is in it too, and the layers are nodes of the domain ``com.microsoft.nchwc``.

Such a file is for ONNX Runtime alone and for processors with blocks of that width; on another the file fails when it
runs (:func:`guard`), it is never wrong. The batch is 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from dynaconv.export.onnx_layers import Layer, Nodes, layers_of, put_back

DOMAIN = "com.microsoft.nchwc"


def block_width() -> int | None:
    """How many channels a block has in ONNX Runtime on this processor; None where it has no such layout."""
    import onnxruntime

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8, 1, 1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("ReorderInput", ["x"], ["y"], domain=DOMAIN)], "probe", [x], [y])
    versions = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, 1)]
    try:
        model = helper.make_model(graph, opset_imports=versions, ir_version=10).SerializeToString()
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        width = int(session.run(None, {"x": np.zeros((1, 8, 1, 1), np.float32)})[0].shape[1])
    except Exception:  # each failure has a class of its own there
        return None
    return width if width > 1 else None


def why_not(layer: Layer, bank: Any, width: int) -> str | None:
    """Why a layer cannot be written so, or None."""
    if layer.transposed or len(layer.taps) != 2:
        return "the layout is for convolutions over images"
    depthwise = layer.groups > 1 and layer.kernel[1] == 1 and layer.out == layer.groups
    if layer.groups > 1 and not depthwise:
        return "it has several channels in a group"
    if layer.groups == 1 and layer.inputs < width:
        return "it has fewer input channels than a block"
    if layer.biases is not None:
        return "it mixes biases"
    return None if bank is not None else "its kernels are no mixture of a constant bank"


def padded(channels: int, width: int) -> int:
    """The channels with those that fill the last block."""
    return -(-channels // width) * width


def in_blocks(bank: np.ndarray, layer: Layer, width: int) -> np.ndarray:
    """A bank ``(K, out * in/groups * taps)`` in the layout of ONNX Runtime's kernels, zeros in the filled channels.

    Depthwise ``[out / w][taps][w]``; else ``[out / w][in / w][taps][w of in][w of out]``.
    """
    experts, (out, inputs), taps = len(bank), layer.kernel[:2], layer.taps[0] * layer.taps[1]
    kernels = bank.reshape(experts, out, inputs, taps)
    more_in = 0 if layer.groups > 1 else padded(inputs, width) - inputs
    kernels = np.pad(kernels, ((0, 0), (0, padded(out, width) - out), (0, more_in), (0, 0)))
    if layer.groups > 1:
        blocks = kernels.reshape(experts, -1, width, taps).transpose(0, 1, 3, 2)
    else:
        blocks = kernels.reshape(experts, -1, width, kernels.shape[2] // width, width, taps).transpose(0, 1, 3, 5, 4, 2)
    return np.ascontiguousarray(blocks.reshape(experts, -1))


def write(layer: Layer, bank: np.ndarray, routing: str, bias: np.ndarray | None, width: int, prefix: str) -> Nodes:
    """The nodes of a layer for one image: mix, reorder the map, convolve, reorder it back."""
    made = Nodes(prefix)
    out = padded(layer.out, width)
    groups = out if layer.groups > 1 else 1
    inputs = 1 if layer.groups > 1 else padded(layer.inputs, width)
    mixed = made.add("MatMul", routing, made.constant(in_blocks(bank, layer, width), np.float32))
    kernel = made.add("Reshape", mixed, made.constant([out, inputs, *layer.taps]))
    tensors = [made.add("ReorderInput", layer.x, domain=DOMAIN), kernel]
    if bias is not None:
        tensors.append(made.constant(np.pad(bias, (0, out - layer.out)), np.float32))
    settings: dict[str, Any] = {
        "kernel_shape": layer.taps,
        "strides": layer.stride,
        "pads": (*layer.padding, *layer.padding),
        "dilations": layer.dilation,
        "group": groups,
    }
    y = made.add("Conv", *tensors, domain=DOMAIN, **settings, **_activation(layer))
    made.add("ReorderOutput", y, to=layer.y, domain=DOMAIN, channels=layer.out)
    return made


def _activation(layer: Layer) -> dict[str, Any]:
    if layer.activation is None:
        return {}
    if layer.activation.op_type == "Relu":
        return {"activation": "Relu"}
    return {"activation": "Clip", "activation_params": list(layer.limits or ())}


def keep_blocks(graph: Any, width: int) -> None:
    """Drop reorderings that undo each other: maps stay in blocks from layer to layer, through sums and poolings."""
    made = Nodes("dynaconv_blocks")
    while _pass(graph, width, made):
        pass
    graph.initializer.extend(made.constants)
    _drop_unread(graph)


def _pass(graph: Any, width: int, made: Nodes) -> bool:
    back = {node.output[0]: node for node in graph.node if node.op_type == "ReorderOutput"}
    nodes: list[Any] = []
    same: dict[str, str] = {}
    for node in graph.node:
        first, second = [back.get(name) for name in (*node.input, "", "")[:2]]
        begun = len(made.nodes)
        if node.op_type == "ReorderInput" and first is not None:
            same[node.output[0]] = first.input[0]
            continue
        if node.op_type == "Add" and first is not None and second is not None and _channels(first) == _channels(second):
            total = made.add("Add", first.input[0], second.input[0])
            made.add("ReorderOutput", total, to=node.output[0], domain=DOMAIN, channels=_channels(first))
        elif first is not None and _is_pooling(node, graph):
            pooled = made.add("GlobalAveragePool", first.input[0], domain=DOMAIN)
            channels, y = _channels(first), node.output[0]
            filled = padded(channels, width)
            flat = made.add("Reshape", pooled, made.constant([1, filled]), to=y if filled == channels else None)
            if filled != channels:
                made.add("Slice", flat, made.constant([0]), made.constant([channels]), made.constant([1]), to=y)
        nodes += made.nodes[begun:] or [node]
    changed = len(nodes) != len(graph.node) or bool(same)
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    for node in copies:
        for number, name in enumerate(node.input):
            node.input[number] = same.get(name, name)
    del graph.node[:]
    graph.node.extend(copies)
    return changed


def _channels(reorder: Any) -> int:
    return int(next(attribute.i for attribute in reorder.attribute if attribute.name == "channels"))


def _is_pooling(node: Any, graph: Any) -> bool:
    """A mean over both sides of the map, which are dropped."""
    if node.op_type != "ReduceMean" or len(node.input) < 2:
        return False
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    axes = next((constant for constant in graph.initializer if constant.name == node.input[1]), None)
    return attributes.get("keepdims", 1) == 0 and axes is not None and list(numpy_helper.to_array(axes)) == [2, 3]


def _drop_unread(graph: Any) -> None:
    """Nodes whose outputs nobody reads any more, and constants."""
    wanted = {output.name for output in graph.output}
    kept: list[Any] = []
    for node in reversed(graph.node):
        if any(name in wanted for name in node.output):
            kept.append(type(node).FromString(node.SerializeToString()))
            wanted.update(node.input)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    constants = [constant for constant in graph.initializer if constant.name in wanted]
    copies = [type(constant).FromString(constant.SerializeToString()) for constant in constants]
    del graph.initializer[:]
    graph.initializer.extend(copies)


def guard(graph: Any, width: int) -> None:
    """Make the graph fail where blocks have another width: the first output's batch dimension would not be 1 there."""
    y = graph.output[0].name
    for node in graph.node:
        for number, name in enumerate(node.output):
            if name == y:
                node.output[number] = f"{y}/unguarded"
    made = Nodes("dynaconv_guard")
    probe = made.add("ReorderInput", made.constant(np.zeros((1, 8, 1, 1)), np.float32), domain=DOMAIN)
    one = made.add("Sub", made.add("Shape", probe, start=1, end=2), made.constant([width - 1]))
    shape = made.add("Concat", one, made.add("Shape", f"{y}/unguarded", start=1), axis=0)
    made.add("Reshape", f"{y}/unguarded", shape, to=y)
    graph.initializer.extend(made.constants)
    graph.node.extend(made.nodes)


def replace(graph: Any, width: int, rest: Callable[[Layer, str], Nodes]) -> int:
    """Write the layers that can be so, and the others by ``rest(layer, prefix)``; returns how many were."""
    constants = {constant.name: constant for constant in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    written: dict[str, Nodes] = {}
    layers = layers_of(graph)
    count = 0
    for number, layer in enumerate(layers):
        prefix = f"dynaconv_{number}"
        routing, bank = _mixture(layer, producers, constants)
        if bank is None or why_not(layer, bank, width) is not None:
            written[layer.y] = rest(layer, prefix)
            continue
        bias = None if layer.bias is None else numpy_helper.to_array(constants[layer.bias])
        written[layer.y] = write(layer, bank, routing, bias, width, prefix)
        count += 1
    put_back(graph, layers, written)
    keep_blocks(graph, width)
    if count:
        guard(graph, width)
    return count


def _mixture(layer: Layer, producers: dict[str, Any], constants: dict[str, Any]) -> tuple[str, np.ndarray | None]:
    """The routing weights and the constant bank of which a layer's kernels are the product; no bank if they are not."""
    reshape = producers.get(layer.kernels)
    mixing = None if reshape is None or reshape.op_type != "Reshape" else producers.get(reshape.input[0])
    constant = None if mixing is None or mixing.op_type != "MatMul" else constants.get(mixing.input[1])
    if mixing is None or constant is None:
        return "", None
    return str(mixing.input[0]), numpy_helper.to_array(constant)
