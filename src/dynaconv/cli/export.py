"""``dynaconv export``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from dynaconv.cli import options
from dynaconv.cli.options import assignments, choice
from dynaconv.cli.terminal import prepare, sentences, width
from dynaconv.errors import UserError
from dynaconv.files import read_json, read_plain

FORMATS = ("onnx", "torch-export", "aoti")
FORMS = ("auto", "single", "scan", "products", "blocked")
INPUTS = ("normalised", "float", "uint8")


def export(
    model: Annotated[str, Argument(help=f"A run's folder or weights; or a network: {options.NETWORKS}.")],
    out: Annotated[Path, Option(help="File to write: .onnx, or .pt2 for the two others.")],
    to: Annotated[str, choice(*FORMATS, help="onnx, torch-export, or aoti (compiled by AOTInductor).")] = "onnx",
    image_size: Annotated[
        str | None, Option(help="Side in pixels, or HEIGHTxWIDTH; others work too where the network allows it.")
    ] = None,
    batch: Annotated[str, Option(help="dynamic (any), or a number to which the file is fixed.")] = "dynamic",
    form: Annotated[
        str,
        choice(*FORMS, help="Dynamic layers in ONNX: scan, products, single or blocked (see docs/deploy.md)."),
    ] = "auto",
    input: Annotated[
        str, choice(*INPUTS, help="normalised images; float (0 to 1) or uint8, which the file normalises.")
    ] = "normalised",
    classes: Annotated[
        Path | None, Option(help="Names of the classes: a text file with one in each line, or a list in JSON.")
    ] = None,
    nms: Annotated[bool, Option("--nms", help="A detector's file also drops overlapping boxes (ONNX).")] = False,
    opset: Annotated[int, Option(help="Of ONNX.")] = 20,
    bank_dtype: Annotated[
        str | None, choice("bfloat16", "int8", help="Store the experts as bfloat16 or int8: a smaller file.")
    ] = None,
    data: Annotated[
        str | None,
        Option(
            help="Images on which the file and the float32 network are compared: a folder of classes, or as in eval."
        ),
    ] = None,
    arg: options.Arg = None,
    weights: options.Weights = None,
    function: options.Model = None,
    threads: options.Threads = None,
    as_json: options.AsJson = False,
) -> None:
    """Write a network for another runtime; the file is run, and compared with the network, before it gets its name."""
    from dynaconv.export import export as write

    prepare(threads)
    report = write(
        model,
        out,
        to=to,
        image_size=_size(image_size),
        batch=_batch(batch),
        form=form,
        input=input,
        classes=None if classes is None else read_classes(classes),
        nms=nms,
        opset=opset,
        bank_dtype=bank_dtype,
        data=data,
        arguments=assignments("--arg", arg),
        weights=weights,
        function=function,
    )
    if as_json:
        whole = {"path": str(report.path), "error": report.error, "reduction_error": report.reduction_error}
        print(json.dumps({**asdict(report), **whole}, indent=2))
    else:
        print(sentences(str(report), width()))


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise UserError(f"--image-size is {text!r}; expected a side such as 224, or height and width: 256x192.")
    return int(sides[0]), int(sides[-1])


def _batch(text: str) -> int | None:
    if text == "dynamic":
        return None
    if not text.isdecimal() or not int(text):
        raise UserError(f"--batch is {text!r}; expected dynamic, or a number of at least 1.")
    return int(text)


def read_classes(path: Path) -> list[str]:
    """Names of classes from a file: one in each line, or a list in JSON (.json)."""
    try:
        names = read_json(path) if path.suffix == ".json" else read_plain(path).decode("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"--classes {path} cannot be read: {error}") from error
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise UserError(f"--classes {path} holds no list of names; expected one in each line, none of them empty.")
    return names
