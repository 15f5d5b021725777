"""Dynamic convolutions by ONNX Runtime's own operators for a blocked layout, whose kernels are mixed in that layout.

ONNX Runtime runs a static network in a blocked layout ("NCHWc"): the channels in blocks of 8 or 16 numbers, as wide as
the processor's vectors. It brings the constant kernels into that layout when it loads a file; kernels that are mixed in
the graph it cannot, and runs them two to six times slower, depthwise ones above all. Here the *bank* is stored in
that layout, so that every mixture is in it too, and the layers are nodes of the domain ``com.microsoft.nchwc``.

Such a file is for ONNX Runtime alone and for processors with blocks of that width; on another the file fails when it
runs (:func:`guard`), it is never wrong. The graph is for one image; with a free batch, ``Scan`` runs the whole of it
for one after the other. ONNX Runtime does not change ordinary convolutions inside of a ``Scan``, so they are written
here too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from dynaconv.export.onnx_banks import Bank, bank_of
from dynaconv.export.onnx_blocked_maps import DOMAIN, keep_blocks, padded
from dynaconv.export.onnx_graph import Nodes, activation_of, readers_of, set_nodes, settings_of
from dynaconv.export.onnx_layers import Layer, layers_of, put_back


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


def in_blocks(bank: Bank, layer: Layer, width: int) -> Bank:
    """A bank in the layout of ONNX Runtime's kernels, ``(K, out / w, n, w)``, zeros in the filled channels.

    Depthwise ``[out / w][taps][w]``; else ``[out / w][in / w][taps][w of in][w of out]``.
    """
    experts, (out, inputs), taps = len(bank.stored), layer.kernel[:2], layer.taps[0] * layer.taps[1]
    kernels = bank.stored.reshape(experts, out, inputs, taps)
    more_in = 0 if layer.groups > 1 else padded(inputs, width) - inputs
    kernels = np.pad(kernels, ((0, 0), (0, padded(out, width) - out), (0, more_in), (0, 0)))
    if layer.groups > 1:
        blocks = kernels.reshape(experts, -1, width, taps).transpose(0, 1, 3, 2)
    else:
        blocks = kernels.reshape(experts, -1, width, kernels.shape[2] // width, width, taps).transpose(0, 1, 3, 5, 4, 2)
    scale = bank.scale
    if scale is not None:
        scale = np.pad(scale, ((0, 0), (0, padded(out, width) - out), (0, 0))).reshape(experts, -1, 1, width)
    return Bank(np.ascontiguousarray(blocks).reshape(experts, padded(out, width) // width, -1, width), scale)


def write(layer: Layer, bank: Bank, routing: str, bias: np.ndarray | None, width: int, prefix: str) -> Nodes:
    """The nodes of a layer for one image: mix, reorder the map, convolve, reorder it back."""
    made = Nodes(prefix)
    out = padded(layer.out, width)
    groups = out if layer.groups > 1 else 1
    inputs = 1 if layer.groups > 1 else padded(layer.inputs, width)
    mixed = made.add("MatMul", routing, in_blocks(bank, layer, width).write(made))
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
    y = made.add("Conv", *tensors, domain=DOMAIN, **settings, **_activation(layer.activation, layer.limits))
    made.add("ReorderOutput", y, to=layer.y, domain=DOMAIN, channels=layer.out)
    return made


def _activation(node: Any, limits: tuple[float, float] | None) -> dict[str, Any]:
    if node is None:
        return {}
    if node.op_type == "Relu":
        return {"activation": "Relu"}
    return {"activation": "Clip", "activation_params": list(limits or ())}


def write_static(graph: Any, width: int) -> None:
    """Write the ordinary convolutions in blocks too, as ONNX Runtime would do itself, but not inside of a ``Scan``."""
    constants = {constant.name: constant for constant in graph.initializer}
    readers, outputs = readers_of(graph), {output.name for output in graph.output}
    written: dict[str, Nodes] = {}
    gone: set[str] = set()
    for number, node in enumerate(graph.node):
        if node.op_type == "Conv" and not node.domain and all(name in constants for name in node.input[1:]):
            settings = settings_of(node)
            kernel = numpy_helper.to_array(constants[node.input[1]])
            if _fits(kernel, settings, width):
                follows = activation_of(node.output[0], readers, outputs, constants)
                bias = numpy_helper.to_array(constants[node.input[2]]) if len(node.input) > 2 else None
                prefix = f"dynaconv_static_{number}"
                written[node.output[0]] = _static(node, settings, kernel, bias, follows, width, prefix)
                gone |= set() if follows is None else {follows[0].output[0]}
    nodes = [
        made
        for node in graph.node
        if node.output[0] not in gone
        for made in (written[node.output[0]].nodes if node.output[0] in written else [node])
    ]
    set_nodes(graph, nodes)
    for made in written.values():
        graph.initializer.extend(made.constants)


def _fits(kernel: np.ndarray, settings: dict[str, Any], width: int) -> bool:
    groups = settings.get("group", 1)
    depthwise = groups > 1 and kernel.shape[1] == 1 and kernel.shape[0] == groups
    padding = settings.get("auto_pad", b"NOTSET")
    return kernel.ndim == 4 and (groups == 1 or depthwise) and padding in (b"NOTSET", "NOTSET")


def _static(
    node: Any,
    settings: dict[str, Any],
    kernel: np.ndarray,
    bias: np.ndarray | None,
    follows: Any,
    width: int,
    prefix: str,
) -> Nodes:
    made = Nodes(prefix)
    channels, inputs, *taps = kernel.shape
    out = padded(channels, width)
    depthwise = settings.get("group", 1) > 1
    narrow = not depthwise and inputs < width  # the image: read as it is, by kernels [out / w][in][taps][w]
    filled = np.pad(kernel, ((0, out - channels), (0, 0), (0, 0), (0, 0)))
    if depthwise or narrow:
        blocks = filled.reshape(-1, width, inputs, *taps).transpose(0, 2, 3, 4, 1)
    else:
        filled = np.pad(filled, ((0, 0), (0, padded(inputs, width) - inputs), (0, 0), (0, 0)))
        inputs = filled.shape[1]
        blocks = filled.reshape(-1, width, inputs // width, width, *taps).transpose(0, 2, 4, 5, 3, 1)
    x = node.input[0] if narrow else made.add("ReorderInput", node.input[0], domain=DOMAIN)
    tensors = [x, made.constant(np.ascontiguousarray(blocks).reshape(out, inputs, *taps), np.float32)]
    if bias is not None:
        tensors.append(made.constant(np.pad(bias, (0, out - channels)), np.float32))
    known = {name: value for name, value in settings.items() if name in ("strides", "pads", "dilations")}
    if depthwise:
        known["group"] = out
    activation = {} if follows is None else _activation(*follows)
    y = made.add("Conv", *tensors, domain=DOMAIN, kernel_shape=taps, **known, **activation)
    target = node.output[0] if follows is None else follows[0].output[0]
    made.add("ReorderOutput", y, to=target, domain=DOMAIN, channels=channels)
    return made


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
    write_static(graph, width)
    keep_blocks(graph, width)
    if count:
        guard(graph, width)
    return count


def _mixture(layer: Layer, producers: dict[str, Any], constants: dict[str, Any]) -> tuple[str, Bank | None]:
    """The routing weights and the constant bank of which a layer's kernels are the product; no bank if they are not."""
    reshape = producers.get(layer.kernels)
    mixing = None if reshape is None or reshape.op_type != "Reshape" else producers.get(reshape.input[0])
    if mixing is None or mixing.op_type != "MatMul":
        return "", None
    return str(mixing.input[0]), bank_of(mixing.input[1], producers, constants, layer.kernel[0])
