"""From a traced program to an ONNX file."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from dynaconv.errors import UserError
from dynaconv.export import onnx_banks, onnx_blocked, onnx_forms, onnx_graph, onnx_layers, seal
from dynaconv.export.prepared import quiet

log = logging.getLogger(__name__)

OPSETS = (18, 23)
"""The oldest and the newest opset that a file can have."""
MOST_BYTES = 2**31 - 1
KEY = "dynaconv"


def check_opset(opset: int) -> None:
    """Raise UserError unless files can have that opset."""
    oldest, newest = OPSETS
    if not oldest <= opset <= newest:
        raise UserError(f"The opset is {opset}; expected {oldest} to {newest}.")


def convert(
    program: torch.export.ExportedProgram, outputs: Sequence[str], *, form: str, opset: int, over_examples: bool = False
) -> Any:
    """The ONNX model of a program whose dynamic convolutions are operators, each written in ``form``.

    ``over_examples``: the program is for one image, and the model runs it for every image of a batch.

    Raises:
        UserError: an operation has no form in ONNX; the message names it.
    """
    with quiet():
        try:
            made = torch.onnx.export(
                program,
                dynamo=True,
                input_names=["images"],
                output_names=list(outputs),
                opset_version=opset,
                custom_translation_table={
                    torch.ops.dynaconv.convolve_each.default: _translate_layer,
                    torch.ops.dynaconv.bank_values.default: _translate_bank,
                },
                verbose=False,
            )
        except Exception as error:  # torch raises its own kinds, and wraps those of others
            raise UserError(f"the network cannot be written as ONNX: {_cause(error)}") from error
    assert made is not None
    model = made.model_proto
    if form == "blocked":
        _write_in_blocks(model)
    else:
        onnx_forms.replace(model.graph, form)
    onnx_banks.replace_all(model.graph)
    _forget_own_domain(model)
    _name_dimensions(model.graph)
    if over_examples:
        onnx_graph.over_examples(model.graph)
    return model


def _write_in_blocks(model: Any) -> None:
    from onnx import TensorProto, helper

    width = onnx_blocked.block_width()
    if width is None:
        raise UserError("ONNX Runtime has no blocked layout on this processor; choose the form 'single'.")
    written = onnx_blocked.replace(
        model.graph, width, lambda layer, prefix: onnx_forms.write(layer, "single", prefix, TensorProto.FLOAT)
    )
    if not written:
        raise UserError("no layer of the network can be written in the blocked layout; choose the form 'single'.")
    model.opset_import.append(helper.make_opsetid(onnx_blocked.DOMAIN, 1))


def _cause(error: BaseException) -> str:
    """The first line of what began it."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def _translate_layer(
    x: Any,
    kernels: Any,
    biases: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    transposed: bool,
    output_padding: Any,
) -> Any:
    """The node that :mod:`~dynaconv.export.onnx_layers` replaces."""
    from onnxscript import values

    node = values.Op(values.Opset(onnx_layers.DOMAIN, 1), onnx_layers.OPERATOR, _schema())
    inputs = (x, kernels) if biases is None else (x, kernels, biases)
    settings = {"stride": stride, "padding": padding, "dilation": dilation, "output_padding": output_padding}
    lists = {name: [int(value) for value in numbers] for name, numbers in settings.items()}
    return node(*inputs, **lists, groups=int(groups), transposed=int(transposed))


def _translate_bank(bank: Any, scale: Any) -> Any:
    """The node that :mod:`~dynaconv.export.onnx_banks` replaces."""
    from onnx.defs import OpSchema
    from onnxscript import values

    def tensor(name: str, kind: str, **more: Any) -> Any:
        return OpSchema.FormalParameter(name, kind, **more)

    optional = OpSchema.FormalParameterOption.Optional
    schema = OpSchema(
        onnx_banks.OPERATOR,
        onnx_banks.DOMAIN,
        1,
        inputs=[tensor("bank", "S"), tensor("scale", "T", param_option=optional)],
        outputs=[tensor("values", "T")],
        type_constraints=[("S", ["tensor(int8)", "tensor(bfloat16)"], ""), ("T", ["tensor(float)"], "")],
    )
    node = values.Op(values.Opset(onnx_banks.DOMAIN, 1), onnx_banks.OPERATOR, schema)
    return node(bank) if scale is None else node(bank, scale)


def _schema() -> Any:
    from onnx.defs import OpSchema

    def tensor(name: str, **more: Any) -> Any:
        return OpSchema.FormalParameter(name, "T", **more)

    lists = [
        OpSchema.Attribute(name, OpSchema.AttrType.INTS) for name in ("stride", "padding", "dilation", "output_padding")
    ]
    numbers = [OpSchema.Attribute(name, OpSchema.AttrType.INT) for name in ("groups", "transposed")]
    optional = OpSchema.FormalParameterOption.Optional
    return OpSchema(
        onnx_layers.OPERATOR,
        onnx_layers.DOMAIN,
        1,
        inputs=[tensor("x"), tensor("kernels"), tensor("biases", param_option=optional)],
        outputs=[tensor("y")],
        type_constraints=[("T", ["tensor(float)", "tensor(double)", "tensor(float16)"], "")],
        attributes=[*lists, *numbers],
    )


def _forget_own_domain(model: Any) -> None:
    kept = [entry for entry in model.opset_import if entry.domain != onnx_layers.DOMAIN]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _name_dimensions(graph: Any) -> None:
    """Free dimensions get names that say what they are; shapes of inner values, which repeat torch's, are dropped."""
    del graph.value_info[:]
    names = {}
    for number, dimension in enumerate(graph.input[0].type.tensor_type.shape.dim):
        if dimension.dim_param:
            names[dimension.dim_param] = ("batch", "channels", "height", "width")[number]
    for value in (*graph.input, *graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_param = names.get(dimension.dim_param, dimension.dim_param)


def write(model: Any, path: Path, about: dict[str, Any]) -> None:
    """Write the model with what must be known about it into one file.

    Raises:
        UserError: it is larger than one ONNX file can be.
    """
    import onnx

    for key, value in ((KEY, json.dumps(about, ensure_ascii=False)), (seal.ENTRY, seal.EMPTY)):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    if model.ByteSize() > MOST_BYTES:
        raise UserError(f"the network has {model.ByteSize() / 2**30:.1f} GiB; one ONNX file holds 2 GiB at most")
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
