"""The file of a saved network: named tensors and a description in one safetensors file, with a checksum over both."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from dynaconv.errors import UserError

FORMAT = 1
_DESCRIPTION, _CHECKSUM = "dynaconv", "sha256"


def _checksum(description: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(description.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        size = tensor.numel() * tensor.element_size()
        if size:
            digest.update((ctypes.c_char * size).from_address(tensor.data_ptr()))
    return digest.hexdigest()


def write(path: Path, tensors: dict[str, Tensor], description: dict[str, Any]) -> Path:
    """Under another name first, so that ``path`` is never half a file."""
    from safetensors.torch import save_file

    text = json.dumps(description, allow_nan=False, ensure_ascii=False)
    metadata = {_DESCRIPTION: text, _CHECKSUM: _checksum(text, tensors)}
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    os.close(handle)
    try:
        save_file(tensors, part, metadata=metadata)
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(part, 0o666 & ~_umask())
        os.replace(part, path)
    finally:
        Path(part).unlink(missing_ok=True)
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def is_archive(path: Path) -> bool:
    """Whether a file is one that ``dynaconv.save`` wrote, damaged perhaps; its metadata alone are read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, ValueError):
        return False
    return _DESCRIPTION in metadata and _CHECKSUM in metadata  # the weights of a run have one entry


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description and the tensors; UserError where the file is damaged or of another format."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is damaged, or no file that dynaconv.save wrote: {error}") from error
    text = metadata.get(_DESCRIPTION)
    if text is None:
        raise UserError(
            f"{path} holds tensors without a description: a damaged file, or weights alone, which dynaconv.load cannot "
            "rebuild a network from"
        )
    if _checksum(text, tensors) != metadata.get(_CHECKSUM):
        raise UserError(f"{path} is damaged: its checksum does not fit. Save the network again")
    description = json.loads(text)
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        facts = description if isinstance(description, dict) else {}
        raise UserError(
            f"{path} has format {facts.get('format')} and was written with the versions {facts.get('versions')}; this "
            f"version reads format {FORMAT}"
        )
    return description, tensors
