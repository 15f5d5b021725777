"""Dynamic convolutions in an ONNX graph: the nodes ``dynaconv.ConvolveEach``, which a form or a layout replaces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from typing import TYPE_CHECKING, Any

from dynaconv.export.onnx_graph import Nodes, activation_of, readers_of, set_nodes, settings_of

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

DOMAIN, OPERATOR = "dynaconv", "ConvolveEach"


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One ``ConvolveEach`` node: the names of its tensors and its settings.

    Attributes:
        kernel: shape of one example's kernel, ``(out, in/groups, *taps)``; transposed ``(in, out/groups, *taps)``.
        biases: name of ``(B, out)``; or None.
        bias: name of a constant ``(out,)`` that is the same for all examples; or None. At most one of the two is given.
        activation: the node that follows, ``Relu`` or ``Clip`` by constants, if it alone reads the output.
        limits: of a ``Clip``.
    """

    x: str
    kernels: str
    y: str
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    transposed: bool
    output_padding: tuple[int, ...]
    biases: str | None = None
    bias: str | None = None
    activation: NodeProto | None = None
    limits: tuple[float, float] | None = None

    @property
    def x_of_activation(self) -> str | None:
        """The layer's own output, where an activation follows."""
        return None if self.activation is None else str(self.activation.input[0])

    @property
    def taps(self) -> tuple[int, ...]:
        return self.kernel[2:]

    @property
    def out(self) -> int:
        return self.kernel[1] * self.groups if self.transposed else self.kernel[0]

    @property
    def inputs(self) -> int:
        return self.kernel[0] if self.transposed else self.kernel[1] * self.groups


def layers_of(graph: GraphProto) -> list[Layer]:
    """The layers of a graph, each with the activation that alone reads it; ``y`` is the activation's output then."""
    producers = {name: node for node in graph.node for name in node.output}
    readers = readers_of(graph)
    constants = {constant.name: constant for constant in graph.initializer}
    outputs = {output.name for output in graph.output}
    shapes = {info.name: info.type.tensor_type for info in (*graph.value_info, *graph.input)}
    layers = []
    for node in graph.node:
        if (node.domain, node.op_type) == (DOMAIN, OPERATOR):
            layer = _read(node, producers, constants, shapes)
            follows = activation_of(layer.y, readers, outputs, constants)
            if follows is not None:
                layer = changed(layer, y=follows[0].output[0], activation=follows[0], limits=follows[1])
            layers.append(layer)
    return layers


def put_back(graph: GraphProto, layers: Sequence[Layer], written: dict[str, Nodes]) -> None:
    """Put the nodes that were written (by ``layer.y``) in the place of their layers and their activations."""
    activations = {layer.y for layer in layers if layer.activation is not None}
    y_of = {layer.x_of_activation or layer.y: layer.y for layer in layers}
    nodes: list[NodeProto] = []
    for node in graph.node:
        if (node.domain, node.op_type) == (DOMAIN, OPERATOR):
            made = written[y_of[node.output[0]]]
            graph.initializer.extend(made.constants)
            nodes += made.nodes
        elif node.output[0] not in activations:
            nodes.append(node)
    set_nodes(graph, nodes)


def _read(node: NodeProto, producers: Any, constants: Any, shapes: Any) -> Layer:
    settings = settings_of(node)
    kernel = tuple(dimension.dim_value for dimension in shapes[node.input[1]].shape.dim[1:])
    biases = node.input[2] if len(node.input) > 2 and node.input[2] else None
    bias = None
    constant = None if biases is None else _one_bias(biases, producers, constants, _out(kernel, settings))
    if constant is not None:
        biases, bias = None, constant
    return Layer(
        x=node.input[0],
        kernels=node.input[1],
        y=node.output[0],
        kernel=kernel,
        stride=tuple(settings["stride"]),
        padding=tuple(settings["padding"]),
        dilation=tuple(settings["dilation"]),
        groups=settings["groups"],
        transposed=bool(settings["transposed"]),
        output_padding=tuple(settings["output_padding"]),
        biases=biases,
        bias=bias,
    )


def _one_bias(biases: str, producers: Any, constants: Any, out: int) -> str | None:
    """The constant ``(out,)`` of which ``biases`` ``(B, out)`` has a copy for every example, or None.

    Where the batch is 1, it may be a constant ``(1, out)``, which is turned into ``(out,)`` here.
    """
    node = producers.get(biases)
    constant = constants.get(node.input[0] if node is not None and node.op_type == "Expand" else biases)
    if constant is not None and list(constant.dims) == [1, out]:
        del constant.dims[0]
    return None if constant is None or list(constant.dims) != [out] else str(constant.name)


def _out(kernel: Sequence[int], settings: dict[str, Any]) -> int:
    """The number of output channels."""
    return int(kernel[1] * settings["groups"] if settings["transposed"] else kernel[0])
