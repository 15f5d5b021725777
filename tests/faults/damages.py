"""What can happen to a file: the table of damages.

A damage changes what is at ``path`` in place; everything random about it comes from ``random``, so that a case can be
repeated. ``CONTENT`` changes bytes, ``PLACE`` puts something else where the file was, ``tree`` (for files that hold
named values) changes one value and writes the file again with everything else, its checksum too, as it should be.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch

Damage = Callable[[Path, Random], None]


def _place(content: bytes, random: Random) -> int:
    """A byte of the file; half of the time one of its first 512, for headers are short and matter."""
    return random.randrange(min(len(content), random.choice((512, len(content)))))


def flip(path: Path, random: Random) -> None:
    """One bit."""
    content = bytearray(path.read_bytes())
    content[_place(content, random)] ^= 1 << random.randrange(8)
    path.write_bytes(content)


def scratch(path: Path, random: Random) -> None:
    """Up to 16 bytes in a row."""
    content = bytearray(path.read_bytes())
    at, length = _place(content, random), random.randint(2, 16)
    content[at : at + length] = random.randbytes(len(content[at : at + length]))
    path.write_bytes(content)


def sector(path: Path, random: Random) -> None:
    """512 bytes that a disk gives back as zeros."""
    content = bytearray(path.read_bytes())
    at = 512 * random.randrange(len(content) // 512 + 1)
    content[at : at + 512] = bytes(len(content[at : at + 512]))
    path.write_bytes(content)


def cut(path: Path, random: Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: random.choice((_place(content, random), len(content) - random.randint(1, 9)))])


def longer(path: Path, random: Random) -> None:
    path.write_bytes(path.read_bytes() + random.choice((b"\0", b"}", b" \n", random.randbytes(700))))


def twice(path: Path, random: Random) -> None:
    path.write_bytes(2 * path.read_bytes())


def empty(path: Path, random: Random) -> None:
    path.write_bytes(b"")


FOREIGN = (
    b"<html><title>404 Not Found</title></html>",
    b"\xff\xfe\x00\x80",
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\1\0\0\0\1\0\0\x08\2\0\0\0",
    b"PK\3\4\x14\0\0\0\0\0",
    b"\x80\4\x95\3\0\0\0\0\0\0\0N.",  # a pickle
    b"null",
    b'"text"',
    b"[1, [2, {}]]",
    b'{"a": NaN}',
    b"{" * 100_000,
    b"[" * 100_000 + b"]" * 100_000,
    b"9" * 5_000,
)


def foreign(path: Path, random: Random) -> None:
    """Another file's content, or another kind of JSON than is expected, or none that ends."""
    path.write_bytes(random.choice((*FOREIGN, random.randbytes(2_000))))


CONTENT: dict[str, Damage] = {
    "flip": flip,
    "scratch": scratch,
    "sector": sector,
    "cut": cut,
    "longer": longer,
    "twice": twice,
    "empty": empty,
    "foreign": foreign,
}


def remove(path: Path, random: Random | None = None) -> None:
    if path.is_dir() and not path.is_symlink():
        for inner in path.iterdir():
            remove(inner)
        path.rmdir()
    else:
        path.unlink()


def _instead(make: Callable[[Path], object]) -> Damage:
    def damage(path: Path, random: Random) -> None:
        remove(path)
        make(path)

    return damage


def lock(path: Path, random: Random) -> None:
    """Nobody may read it; cases with this damage run as a user whom that concerns."""
    path.chmod(0)


PLACE: dict[str, Damage] = {
    "gone": remove,
    "folder": _instead(Path.mkdir),
    "pipe": _instead(os.mkfifo),
    "loop": _instead(lambda path: path.symlink_to(path.name)),
    "dangling": _instead(lambda path: path.symlink_to("nowhere")),
    "device": _instead(lambda path: path.symlink_to("/dev/zero")),
    "lock": lock,
}

VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 7, 2**31, 2**63, 10**30, 0.5, -0.0, 1e-300, 1e308),
    *(float("nan"), float("inf"), -float("inf")),
    *("", "x", "\0", "../..", "é" * 300, [], {}, [[]], [None], [1, 2, 3], {"a": 1}, "[" * 50),
)
TENSORS: tuple[Callable[[torch.Tensor], Any], ...] = (
    lambda tensor: tensor.new_zeros(0),
    lambda tensor: tensor.unsqueeze(0),
    lambda tensor: tensor.double(),
    lambda tensor: tensor.bool(),
    lambda tensor: torch.full_like(tensor, float("nan")) if tensor.is_floating_point() else tensor - 1,
    lambda tensor: tensor.tolist(),
)


def _nodes(tree: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Every place in nested lists and dictionaries, as (container, key)."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in inner:
        found.append((tree, key))
        _nodes(value, found)
    return found


def change_tree(tree: Any, random: Random) -> Any:
    """Nested lists and dictionaries of values with one thing that should not be: a value, a key, a length."""
    places = _nodes(tree, [])
    how = random.choice(("value", "value", "value", "drop", "key", "more"))
    if random.random() < 0.02 or not places:
        return random.choice(VALUES)
    container, key = random.choice(places)
    if how == "drop":
        del container[key]
    elif how == "key" and isinstance(container, dict):
        container[random.choice((f"{key}s", "", "wings"))] = container.pop(key)
    elif how == "more" and isinstance(container, list):
        container.insert(key, container[key])
    elif how == "more":
        container[random.choice(("wings", "x" * 300))] = random.choice(VALUES)
    elif isinstance(container[key], torch.Tensor) and random.random() < 0.8:
        container[key] = random.choice(TENSORS)(container[key])
    else:
        container[key] = random.choice(VALUES)
    return tree
