"""A checksum inside an exported file, in its metadata: a flipped bit in a weight or in the name of a class is noticed.

The checksum is the sha256 of the whole file with 64 zeros in the place of its own digits. An ONNX file keeps it as the
entry ``dynaconv.sha256`` of its metadata, a .pt2 file (a zip archive) as the archive's comment: runtimes ignore both.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
from pathlib import Path
from typing import IO

from dynaconv.errors import UserError

ENTRY = "dynaconv.sha256"
EMPTY = "0" * 64
# Between the name and the digits stand two bytes of protobuf (field 2, 64 bytes long), or a colon in a comment.
_PLACE = re.compile(rb"dynaconv\.sha256(?:\x12\x40|:)(.{64})", re.DOTALL)  # any 64 bytes: digits may be damaged too
_END_OF_ZIP, _END_BYTES = b"PK\5\6", 22
_PIECE = 1 << 20


def seal(path: Path) -> None:
    """Write the checksum into a file that has an empty place for it, or into a zip archive; flush it to the disk.

    Raises:
        OSError: the file cannot be written.
    """
    with open(path, "r+b") as file:
        if path.suffix != ".onnx":
            _add_comment(file)
        place = _find_place(file.fileno())
        if place is None:
            raise RuntimeError(f"{path.name} has no place for a checksum")
        file.seek(place)
        file.write(_digest(file.fileno(), place).encode())
        file.flush()
        os.fsync(file.fileno())


def check_seal(path: Path) -> None:
    """Compare a file with its checksum. A file without one passes: it was written by another tool, or a former version.

    Raises:
        UserError: it differs, or cannot be read.
    """
    try:
        with open(path, "rb") as file:
            place = _find_place(file.fileno())
            if place is None:
                return
            file.seek(place)
            expected = file.read(len(EMPTY))
            found = _digest(file.fileno(), place).encode()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    if found != expected:
        raise UserError(
            f"{path} is damaged: it does not match its checksum. Export the network again. (If another tool changed "
            f"the file on purpose, remove its metadata entry {ENTRY}.)"
        )


def _add_comment(file: IO[bytes]) -> None:
    """Append ``dynaconv.sha256:000...`` to a zip archive, as its comment."""
    comment = f"{ENTRY}:{EMPTY}".encode()
    file.seek(-_END_BYTES, os.SEEK_END)
    end = file.read(_END_BYTES)
    if not end.startswith(_END_OF_ZIP) or end[-2:] != b"\0\0":
        raise RuntimeError("expected a zip archive without a comment")
    file.seek(-2, os.SEEK_END)
    file.write(len(comment).to_bytes(2, "little") + comment)
    file.flush()


def _find_place(descriptor: int) -> int | None:
    """Where the digits begin; None where there is no checksum."""
    if os.fstat(descriptor).st_size == 0:
        return None
    with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as content:
        found = [match.start(1) for match in _PLACE.finditer(content)]
    return found[-1] if found else None


def _digest(descriptor: int, place: int) -> str:
    """The sha256 of the file with zeros at ``place``."""
    digest = hashlib.sha256()
    with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as content:
        for start, end in ((0, place), (place + len(EMPTY), len(content))):
            for at in range(start, end, _PIECE):
                digest.update(content[at : min(at + _PIECE, end)])
            if start == 0:
                digest.update(EMPTY.encode())
    return digest.hexdigest()
