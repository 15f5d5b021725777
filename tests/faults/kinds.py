"""What a file of the table is, and how its values are changed while its checksum stays right."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dynaconv.files import CHECKSUM, sha256_of
from dynaconv.inference import archive_file
from dynaconv.tasks.weights import KEY, _digest, read_weights
from faults.damages import CONTENT, PLACE


@dataclass(frozen=True)
class Tree:
    """How a file's values are read and written again; ``whole``: with the checksum that belongs to them."""

    read: Callable[[Path], Any]
    write: Callable[[Path, Any], object]
    whole: bool = True


@dataclass(frozen=True)
class Kind:
    """A file that the program reads.

    Attributes:
        path: below the folder of the case; the newest if it has a ``*``.
        make: writes everything whole.
        read: what the program makes of it.
        tree: its values, if it has any.
        checked: it has a checksum, so a damage is noticed or changes nothing.
        named: words of which an error has one, beside the file's name.
        damages: that are tried.
        share: of the cases; less for slow readers.
    """

    path: str
    make: Callable[[Path], None]
    read: Callable[[Path], Any]
    tree: Tree | None = None
    checked: bool = False
    named: tuple[str, ...] = ()
    damages: tuple[str, ...] = (*CONTENT, *PLACE)
    share: float = 1.0


def _write_json(path: Path, tree: Any) -> None:
    path.write_text(json.dumps(tree))


def _write_checkpoint(path: Path, tree: Any) -> None:
    torch.save(tree, path)
    path.with_name(path.name + CHECKSUM).write_text(f"{sha256_of(path)}  {path.name}\n")


def _plain_tensors(tensors: Any) -> dict[str, torch.Tensor]:
    """What a safetensors file can hold of it."""
    pairs = tensors.items() if isinstance(tensors, dict) else ()
    return {name: value.contiguous() for name, value in pairs if isinstance(value, torch.Tensor)}


def _read_weights(path: Path) -> Any:
    tensors, about = read_weights(path)
    return {"tensors": dict(tensors), "about": about}


def _write_weights(path: Path, tree: Any) -> None:
    from safetensors.torch import save_file

    tree = tree if isinstance(tree, dict) else {"about": tree}
    tensors, about = _plain_tensors(tree.get("tensors")), tree.get("about")
    if isinstance(about, dict):
        about = {**about, "sha256": _digest(tensors, about)}
    save_file(tensors, path, {KEY: json.dumps(about)})


def _read_archive(path: Path) -> Any:
    description, tensors = archive_file.read(path)
    return {"description": description, "tensors": dict(tensors)}


def _write_archive(path: Path, tree: Any) -> None:
    from safetensors.torch import save_file

    tree = tree if isinstance(tree, dict) else {"description": tree}
    tensors, text = _plain_tensors(tree.get("tensors")), json.dumps(tree.get("description"))
    save_file(tensors, path, {"dynaconv": text, "sha256": archive_file._checksum(text, tensors)})


JSON = Tree(lambda path: json.loads(path.read_text()), _write_json, whole=False)
CHECKPOINT = Tree(lambda path: torch.load(path, weights_only=True), _write_checkpoint)
WEIGHTS = Tree(_read_weights, _write_weights)
ARCHIVE = Tree(_read_archive, _write_archive)
