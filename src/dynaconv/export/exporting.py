"""``dynaconv.export.export``: from a network to a file that was run and checked."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from dynaconv.errors import UserError, cannot_write, suggest
from dynaconv.export import check as checking
from dynaconv.export.agreement import agreement, open_images
from dynaconv.export.banks import reduce_banks, with_plain_banks
from dynaconv.export.check import LARGEST_ERROR
from dynaconv.export.prepared import check_input, frozen, with_preprocessing
from dynaconv.export.report import ExportReport
from dynaconv.export.runtimes import Exported, check_installed, load
from dynaconv.export.seal import seal
from dynaconv.export.source import Source, open_source
from dynaconv.export.tracing import has_free_size, trace
from dynaconv.inference.bank import check_bank_dtype
from dynaconv.ops.strategies.operator import as_operators

FORMATS = {"onnx": ".onnx", "torch-export": ".pt2", "aoti": ".pt2"}
MOST_IMAGES = 65_536  # of a batch
FORMS = ("auto", "single", "scan", "products", "blocked")


def export(
    model: str | Path | nn.Module,
    path: str | Path,
    *,
    to: str = "onnx",
    image_size: int | Sequence[int] | None = None,
    batch: int | None = None,
    form: str = "auto",
    input: str = "normalised",
    classes: Sequence[str] | None = None,
    nms: bool = False,
    opset: int = 20,
    bank_dtype: str | None = None,
    data: str | None = None,
    arguments: dict[str, Any] | None = None,
    weights: Path | None = None,
    function: str | None = None,
) -> ExportReport:
    """Write a network into a file for another runtime, run that file, and compare it with the network.

    Batch norm and temperature are folded (:func:`dynaconv.freeze`). Nothing is left under ``path`` unless the outputs
    of the file that was written are the network's, at batch 1, 2 and 5 and, where it is free, at other image sizes.

    Args:
        model: a network's name, a run folder, a weights file, a file of :func:`dynaconv.save`, or a module that takes
            images and returns a tensor or several.
        path: the file.
        to: ``"onnx"``; ``"torch-export"`` (a program of torch's own operations); ``"aoti"`` (compiled by AOTInductor
            with this project's kernels inside, for this kind of processor; runs where dynaconv is imported).
        image_size: side, or ``(height, width)``; the network's own if None. Other sizes work too where the network
            allows it (``free_size`` of the report).
        batch: None leaves the batch free; a number fixes it.
        form: of dynamic convolutions in ONNX, see :mod:`dynaconv.export.onnx_forms`; ``"auto"``: ``"single"`` for
            batch 1, else ``"scan"``. ``"blocked"`` is for ONNX Runtime on processors like this one alone,
            and the fastest there: :mod:`dynaconv.export.onnx_blocked`.
        input: ``"normalised"`` images; ``"float"`` from 0 to 1, or ``"uint8"``, which the file normalises.
        classes: names of the classes, in place of those that are saved with the weights.
        nms: a detector's file also suppresses overlapping boxes (ONNX): a third output ``selected``, ``(n, 3)``, has
            the numbers of image, class and box.
        opset: of ONNX.
        bank_dtype: None; ``"bfloat16"`` or ``"int8"`` stores the experts in fewer bytes, as :func:`dynaconv.freeze`
            does. The file is then held against the network with such banks in PyTorch.
        data: images on which the file and the network in float32 choose their classes: a folder of classes, or a data
            set's name. How often they agree is in the report.
        arguments: of ``timm.create_model`` or of the function, where ``model`` is a name.
        weights: a local file, where ``model`` is a name.
        function: ``path/to/file.py:function`` that builds a run's network, where it is one of your own.

    Returns:
        What was written, and how large its error is.

    Raises:
        UserError: something that does not fit, an operation or a layer that cannot be exported, a runtime that is not
            installed, or outputs that differ; nothing is written then.
    """
    if to not in FORMATS:
        raise UserError(f"The format is {to!r}. {suggest(str(to), FORMATS)}")
    if form not in FORMS:
        raise UserError(f"The form is {form!r}. {suggest(str(form), FORMS)}")
    if to != "onnx" and (form != "auto" or nms):
        raise UserError(f"form and nms belong to ONNX, and the format is {to!r}.")
    try:
        check_bank_dtype(bank_dtype)
    except ValueError as error:
        raise UserError(str(error)) from error
    if batch is not None and not 1 <= batch <= MOST_IMAGES:
        raise UserError(f"batch is {batch!r}; expected 1 to {MOST_IMAGES:,}, or None for any.")
    if form == "single" and batch != 1:
        raise UserError("The form 'single' is for batch 1; give batch=1, or choose 'scan' or 'products'.")
    if form == "blocked" and batch not in (None, 1):
        raise UserError("The form 'blocked' is for batch 1 or a free batch; choose 'scan' or 'products'.")
    path = _target(Path(path), FORMATS[to])
    check_installed(to)
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    source = open_source(
        model, image_size=size, classes=classes, arguments=arguments, weights=weights, function=function
    )
    check_input(input, source)
    if nms and source.task != "detection":
        raise UserError(f"nms is for detectors, and {source.name} is a network for {source.task}.")
    images = None if data is None else open_images(data, source)
    wanted = _Wanted(path=path, to=to, batch=batch, form=form, input=input, nms=nms, opset=opset, bank_dtype=bank_dtype)
    return _write_checked(source, wanted, images)


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    path: Path
    to: str
    batch: int | None
    form: str
    input: str
    nms: bool
    opset: int
    bank_dtype: str | None


def _target(path: Path, suffix: str) -> Path:
    if path.suffix != suffix:
        raise UserError(f"The file is {str(path)!r}; expected a name that ends in {suffix}.")
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"Cannot write {path}: it is a folder, or {path.parent} is none.")
    return path


def _write_checked(source: Source, wanted: _Wanted, images: Any) -> ExportReport:
    """With a free image size first; if the file is off at another size only, with the fixed one."""
    network = frozen(source)
    expected = [with_preprocessing(source.network, source, wanted.input)]
    if wanted.bank_dtype is not None:
        if not reduce_banks(network, wanted.bank_dtype):
            raise UserError(f"{source.name} has no bank that could be stored in {wanted.bank_dtype}; leave it away.")
        expected.insert(0, with_preprocessing(copy.deepcopy(network), source, wanted.input))
    for free_size in (True, False):
        if free_size and source.fixed_size:
            continue
        report, part = _write(source, network, expected, wanted, free_size)
        try:
            own = f"{source.input_size[1]}x{source.input_size[2]}"
            wrong = {case: error for case, error in report.errors.items() if not error <= LARGEST_ERROR}
            if not wrong:
                if images is not None:
                    found = agreement(_load(part, wanted), expected[-1], images, source.classes)
                    report = replace(report, agreement=found)
                os.replace(part, wanted.path)
                return report
            if not report.free_size or any(case.endswith(own) for case in wrong):
                told = ", ".join(f"{case}: {error:.1e}" for case, error in wrong.items())
                raise UserError(
                    f"the file differs from {source.name} by more than {LARGEST_ERROR:.0e} of the largest output "
                    f"({told}; inf where it does not run or is not finite); nothing was written"
                )
        finally:
            part.unlink(missing_ok=True)
    raise AssertionError("the second pass returns or raises")


def _write(
    source: Source, network: nn.Module, expected: list[nn.Module], wanted: _Wanted, free_size: bool
) -> tuple[ExportReport, Path]:
    """Write under another name in the same folder, and measure the error; the caller removes the file."""
    handle, name = tempfile.mkstemp(dir=wanted.path.parent, prefix=f".{wanted.path.stem}-", suffix=wanted.path.suffix)
    os.close(handle)
    part = Path(name)
    try:
        about, graph_madds = _convert(source, network, wanted, free_size, part)
        seal(part)
        errors, *reduction_errors = checking.check(_load(part, wanted), expected, source)
        report = ExportReport(
            path=wanted.path,
            format=wanted.to,
            form=about.get("form"),
            batch=wanted.batch,
            free_size=about["free_size"],
            errors=errors,
            madds=_madds(source),
            graph_madds=graph_madds,
            megabytes=part.stat().st_size / 2**20,
            bank_dtype=wanted.bank_dtype,
            reduction_errors=reduction_errors[0] if reduction_errors else None,
        )
        os.chmod(part, 0o644)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise cannot_write(wanted.path, error) from error
        raise
    return report, part


def _load(part: Path, wanted: _Wanted) -> Exported:
    """The file under its other name, with the name that messages shall have."""
    return replace(load(part, runtime=wanted.to), path=wanted.path)


def _convert(
    source: Source, network: nn.Module, wanted: _Wanted, free_size: bool, part: Path
) -> tuple[dict[str, Any], float | None]:
    about: dict[str, Any] = {
        "format": wanted.to,
        "name": source.name,
        "task": source.task,
        "classes": source.classes,
        "preprocessing": source.preprocessing,
        "input": wanted.input,
        "input_size": list(source.input_size),
        "batch": wanted.batch,
        "bank_dtype": wanted.bank_dtype,
        **source.facts,
        "outputs": [*source.outputs, *["selected"] * wanted.nms],
    }
    if wanted.to == "onnx":
        from dynaconv.export import onnx_cost, onnx_file, onnx_nms

        onnx_file.check_opset(wanted.opset)
        plain = with_preprocessing(with_plain_banks(network, as_operators=True), source, wanted.input)
        blocked = wanted.form == "blocked"  # written for one image, see onnx_blocked
        with as_operators():
            program = trace(plain, source, wanted.input, 1 if blocked else wanted.batch, free_size)
        about["form"] = wanted.form if wanted.form != "auto" else ("single" if wanted.batch == 1 else "scan")
        model = onnx_file.convert(
            program,
            source.outputs,
            form=about["form"],
            opset=wanted.opset,
            over_examples=blocked and wanted.batch is None,
        )
        about["free_size"] = has_free_size(program)
        if wanted.nms:
            onnx_nms.append(model.graph)
        onnx_file.write(model, part, about)
        return about, onnx_cost.madds(model, source.input_size)
    from dynaconv.export import torch_file

    return torch_file.write(source, network, wanted.to, wanted.input, wanted.batch, free_size, part, about)


def _madds(source: Source) -> float | None:
    """Of the network as it was, for one image, by this project's counter; None where it cannot count it."""
    from dynaconv.counting import cost

    try:
        return cost(source.original or source.network, source.input_size).total
    except ValueError:
        return None
