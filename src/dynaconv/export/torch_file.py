"""Programs of torch in files (.pt2): ``torch-export``, and ``aoti``, which AOTInductor compiled."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dynaconv.errors import UserError
from dynaconv.export.banks import with_plain_banks
from dynaconv.export.prepared import example, quiet, with_preprocessing
from dynaconv.export.source import Source
from dynaconv.export.tracing import has_free_size, program_batch, trace
from dynaconv.inference import FrozenLayer
from dynaconv.inference.compiled import hand_on_sums
from dynaconv.inference.layer import FROZEN
from dynaconv.torch_private import compile_package, load_package

EXTRA = "dynaconv.json"
_ABOUT = "dynaconv"


def write(
    source: Source,
    network: nn.Module,
    to: str,
    input: str,
    batch: int | None,
    free_size: bool,
    part: Path,
    about: dict[str, Any],
) -> tuple[dict[str, Any], float | None]:
    """Trace the network and write it; returns what was written about it, and the multiply-adds of the program."""
    ready = with_plain_banks(network) if to == "torch-export" else with_own_kernels(network)
    program = trace(with_preprocessing(ready, source, input), source, input, batch, free_size)
    about["free_size"] = has_free_size(program)
    text = json.dumps(about, ensure_ascii=False)
    if to == "torch-export":
        content = io.BytesIO()  # on a full disk torch's own writer says nothing of the disk
        with quiet():
            torch.export.save(program, content, extra_files={EXTRA: text})
        part.write_bytes(content.getbuffer())
        return about, madds(program, source, input)
    hand_on_sums(program.graph)  # every layer gives the next router the sums over its output
    program.graph_module.recompile()
    compile_into(program, part, text)
    return about, None


def madds(program: torch.export.ExportedProgram, source: Source, input: str) -> float | None:
    """Multiply-adds of a program's operations for one image; None where one of them is not known to the counter."""
    from dynaconv.counting import cost

    batch = program_batch(program)
    try:
        return cost(program.module(), inputs=example(source, input, batch)).total / batch
    except (ValueError, RuntimeError):
        return None


def with_own_kernels(network: nn.Module) -> nn.Module:
    """Change the frozen layers, in place, so that a program has the kernels of this project where they fit."""
    for layer in network.modules():
        if isinstance(layer, FrozenLayer) and layer.layout != "rows" and layer.dtype == torch.float32:
            layer.strategy = FROZEN
    return network.to(memory_format=torch.channels_last)


def compile_into(program: torch.export.ExportedProgram, part: Path, text: str) -> None:
    """Compile a program with AOTInductor into one file.

    Raises:
        UserError: no compiler, or an operation that it cannot compile.
    """
    config = {"freezing": True, "aot_inductor.metadata": {_ABOUT: text}}
    with quiet():
        try:
            compile_package(program, str(part), config)
        except Exception as error:  # the compiler's own kinds
            lines = str(error).strip().splitlines()
            told = f"{type(error).__name__}: {lines[0] if lines else ''}"
            raise UserError(f"AOTInductor cannot compile the network: {told}") from error


def open_file(path: Path) -> tuple[str, Callable[..., Any]]:
    """What a .pt2 file says about itself, in JSON, and the function that runs it.

    Raises:
        UserError: the file is damaged, or was not written by this project.
    """
    compiled = _is_compiled(path)
    with quiet():
        try:
            if compiled:
                loaded = load_package(str(path))
                return loaded.get_metadata().get(_ABOUT, ""), loaded
            extra = {EXTRA: ""}
            module = torch.export.load(path, extra_files=extra).module()
        except Exception as error:  # RuntimeError, and what damaged bytes make of it
            lines = str(error).strip().splitlines()
            raise UserError(
                f"{path} cannot be opened by torch: {lines[0] if lines else type(error).__name__}"
            ) from error
    return extra[EXTRA], module


def _is_compiled(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any("aotinductor" in name for name in archive.namelist())
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{path} is no whole .pt2 file ({error}).") from error
