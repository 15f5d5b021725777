"""How a dynamic convolution is written in ONNX: the nodes that replace ``dynaconv.ConvolveEach``.

``Conv`` cannot be given a kernel for every example: its number of groups is a constant, so "groups = batch" would
freeze the batch. Three forms keep it free, or do not need to:

``"single"``: the batch is 1, so it is an ordinary ``Conv`` with the mixed kernel.
``"scan"``: the operator ``Scan`` runs that ``Conv`` for one example after the other, with the activation that follows.
``"products"``: one batched ``MatMul``, of the map itself (1x1 kernels) or of its patches; no control flow.

All three do exactly the multiply-adds of the layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper

from dynaconv.export.onnx_graph import Nodes
from dynaconv.export.onnx_layers import Layer, layers_of, put_back

if TYPE_CHECKING:
    from onnx import GraphProto

FORMS = ("single", "scan", "products")
_END = np.iinfo(np.int64).max


def replace(graph: GraphProto, form: str) -> list[Layer]:
    """Replace every ``ConvolveEach`` of a graph by the nodes of a form; returns the layers in their order."""
    types = {info.name: info.type.tensor_type.elem_type for info in (*graph.value_info, *graph.input)}
    layers = layers_of(graph)
    written = {
        layer.y: write(layer, form, f"dynaconv_{number}", types[layer.kernels]) for number, layer in enumerate(layers)
    }
    put_back(graph, layers, written)
    return layers


def write(layer: Layer, form: str, prefix: str, dtype: int) -> Nodes:
    """The nodes of a layer in one of :data:`FORMS`, from ``layer.x`` to ``layer.y``; ``dtype`` is ``TensorProto``'s."""
    if form not in FORMS:
        raise ValueError(f"form is {form!r}; expected one of {', '.join(FORMS)}")
    made = Nodes(prefix)
    if layer.transposed and any(more >= step for more, step in zip(layer.output_padding, layer.stride, strict=True)):
        form = "products"  # torch allows it under a dilation, ONNX Runtime's ConvTranspose does not
    if form == "single":
        _single(layer, made)
    elif form == "scan":
        _scan(layer, made, dtype)
    else:
        _products(layer, made)
    return made


def _convolve(layer: Layer, x: str, kernel: str, bias: str | None, made: Nodes, to: str) -> None:
    """``Conv`` or ``ConvTranspose`` with one kernel, and the activation behind it."""
    settings: dict[str, Any] = {
        "kernel_shape": layer.taps,
        "strides": layer.stride,
        "pads": (*layer.padding, *layer.padding),
        "dilations": layer.dilation,
        "group": layer.groups,
    }
    if layer.transposed:
        settings["output_padding"] = layer.output_padding
    kind = "ConvTranspose" if layer.transposed else "Conv"
    inputs = (x, kernel) if bias is None else (x, kernel, bias)
    if layer.activation is None:
        made.add(kind, *inputs, to=to, **settings)
    else:
        made.add(layer.activation.op_type, made.add(kind, *inputs, **settings), *layer.activation.input[1:], to=to)


def _single(layer: Layer, made: Nodes) -> None:
    kernel = made.add("Reshape", layer.kernels, made.constant(layer.kernel))
    bias = layer.bias
    if layer.biases is not None:
        bias = made.add("Reshape", layer.biases, made.constant([layer.out]))
    _convolve(layer, layer.x, kernel, bias, made, layer.y)


def _scan(layer: Layer, made: Nodes, dtype: int) -> None:
    """Each step returns ``(1, out, *space)``: without it ONNX Runtime would copy the map to drop a dimension of it."""
    inner = Nodes(f"{made.prefix}/example")
    x, kernel, bias, y = (f"{inner.prefix}:{name}" for name in ("x", "kernel", "bias", "y"))
    mapped = inner.add("Unsqueeze", x, made.constant([0]))
    _convolve(layer, mapped, kernel, bias if layer.biases is not None else layer.bias, inner, y)
    space = [None] * len(layer.taps)
    scanned = [(x, layer.x, (layer.inputs, *space)), (kernel, layer.kernels, layer.kernel)]
    if layer.biases is not None:
        scanned.append((bias, layer.biases, (layer.out,)))
    body = helper.make_graph(
        inner.nodes,
        f"{made.prefix}/example",
        [helper.make_tensor_value_info(name, dtype, shape) for name, _, shape in scanned],
        [helper.make_tensor_value_info(y, dtype, (1, layer.out, *space))],
    )
    steps = made.add("Scan", *(outer for _, outer, _ in scanned), body=body, num_scan_inputs=len(scanned))
    made.add("Squeeze", steps, made.constant([1]), to=layer.y)


def _products(layer: Layer, made: Nodes) -> None:
    """``y[b, g] = W[b, g] @ columns[b, g]``, as the strategy ``unfold``."""
    x, kernels, kernel, padding = layer.x, layer.kernels, layer.kernel, [(pad, pad) for pad in layer.padding]
    stride = layer.stride
    if layer.transposed:
        x, kernels, kernel, padding = _as_convolution(layer, made)
        stride = (1,) * len(layer.taps)
    if any(before or after for before, after in padding):
        x = _pad(x, padding, made)
    columns, rows = _columns(layer, x, stride, made)
    groups, out = layer.groups, layer.out
    space = made.add("Shape", rows, start=2)  # the output positions
    per_group = kernel[1] * math.prod(layer.taps)
    columns = made.add("Reshape", columns, made.constant([0, groups, per_group, -1]))
    weights = made.add("Reshape", kernels, made.constant([-1, groups, out // groups, per_group]))
    y = made.add("MatMul", weights, columns)
    shape = made.add("Concat", made.constant([0, out]), space, axis=0)
    last = layer.biases is None and layer.bias is None and layer.activation is None
    y = made.add("Reshape", y, shape, to=layer.y if last else None)
    ones = (1,) * len(layer.taps)
    if layer.biases is not None or layer.bias is not None:
        target = [-1, out, *ones] if layer.biases is not None else [out, *ones]
        bias = made.add("Reshape", layer.biases or layer.bias or "", made.constant(target))
        y = made.add("Add", y, bias, to=None if layer.activation is not None else layer.y)
    if layer.activation is not None:
        made.add(layer.activation.op_type, y, *layer.activation.input[1:], to=layer.y)


def _columns(layer: Layer, x: str, stride: Sequence[int], made: Nodes) -> tuple[str, str]:
    """``(B, C, *padded)`` to ``(B, C, taps, *space)``, and one of its rows ``(B, C, *space)``.

    The ends of the slices are counted from the end of the map, so that they fit any size of it.
    """
    dims = len(layer.taps)
    axes, steps = made.constant(range(2, 2 + dims)), made.constant(stride)
    if math.prod(layer.taps) == 1:
        visited = (
            x
            if all(step == 1 for step in stride)
            else made.add("Slice", x, made.constant([0] * dims), made.constant([_END] * dims), axes, steps)
        )
        return visited, visited
    rows = []
    for tap in np.ndindex(*layer.taps):
        starts = [offset * dilation for offset, dilation in zip(tap, layer.dilation, strict=True)]
        behind = [
            (size - 1 - offset) * dilation
            for size, offset, dilation in zip(layer.taps, tap, layer.dilation, strict=True)
        ]
        ends = made.constant([-left if left else _END for left in behind])
        rows.append(made.add("Slice", x, made.constant(starts), ends, axes, steps))
    unsqueezed = [made.add("Unsqueeze", row, made.constant([2])) for row in rows]
    return made.add("Concat", *unsqueezed, axis=2), rows[0]


def _pad(x: str, amounts: Sequence[tuple[int, int]], made: Nodes) -> str:
    before, after = zip(*amounts, strict=True)
    return made.add("Pad", x, made.constant([0, 0, *before, 0, 0, *after]))


def _as_convolution(layer: Layer, made: Nodes) -> tuple[str, str, tuple[int, ...], list[tuple[int, int]]]:
    """A transposed convolution as a plain one: zeros between the inputs, the kernel mirrored, in and out exchanged."""
    dims, groups = len(layer.taps), layer.groups
    x = layer.x
    for axis in range(2, 2 + dims):
        x = _spread(x, axis, layer.stride[axis - 2], 2 + dims, made)
    axes = made.constant(range(1, 1 + dims + 2))
    starts, ends = [0, 0, *[_END] * dims], [_END, _END, *[-_END] * dims]
    steps = [1, 1, *[-1] * dims]
    kernels = made.add("Slice", layer.kernels, made.constant(starts), made.constant(ends), axes, made.constant(steps))
    channels, per_group = layer.kernel[0] // groups, layer.kernel[1]
    kernels = made.add("Reshape", kernels, made.constant([-1, groups, channels, per_group, *layer.taps]))
    kernels = made.add("Transpose", kernels, perm=[0, 1, 3, 2, *range(4, 4 + dims)])
    padding = []
    for axis, size in enumerate(layer.taps):
        before = layer.dilation[axis] * (size - 1) - layer.padding[axis]
        padding.append((before, before + layer.output_padding[axis]))
    return x, kernels, (layer.out, channels, *layer.taps), padding


def _spread(x: str, axis: int, stride: int, rank: int, made: Nodes) -> str:
    """``stride - 1`` zeros between the elements along an axis."""
    if stride == 1:
        return x
    wide = made.add("Unsqueeze", x, made.constant([axis + 1]))
    pads = [0] * 2 * (rank + 1)
    pads[rank + 1 + axis + 1] = stride - 1
    wide = made.add("Pad", wide, made.constant(pads))
    shape = made.constant([0] * axis + [-1] + [0] * (rank - axis - 1))
    if axis + 1 < rank:  # a zero in a shape means "as the input's dimension of that number": move them by one
        parts = [made.add("Shape", x, start=0, end=axis), made.constant([-1]), made.add("Shape", x, start=axis + 1)]
        shape = made.add("Concat", *parts, axis=0)
    wide = made.add("Reshape", wide, shape)
    return made.add("Slice", wide, made.constant([0]), made.constant([-(stride - 1)]), made.constant([axis]))
