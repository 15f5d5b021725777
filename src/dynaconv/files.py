"""Files that are written atomically: they are complete or do not exist. And files that are read whole."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

TEMPORARY = ".tmp"
CHECKSUM = ".sha256"
SEAL = "sha256"


class HashingFile:
    """A binary file that hashes what is written to it, and keeps the first error (torch reports a vaguer one)."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            written = self._file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise
        self._hash.update(data)
        return written

    def flush(self) -> None:
        self._file.flush()

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def write_whole(path: Path, write: Callable[[HashingFile], object]) -> str:
    """Write to a temporary name, flush to the disk, rename; returns the content's sha256.

    Raises:
        OSError: the disk is full or the folder not writable. Nothing is left under ``path``, or what was there before.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        with open(temporary, "wb") as file:
            hashing = HashingFile(file)
            try:
                write(hashing)
            except Exception as error:
                raise hashing.error or error from None
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
        return hashing.hexdigest()
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """:func:`write_whole` for text."""
    write_whole(path, lambda file: file.write(text.encode()))


def write_output(path: Path, text: str) -> None:
    """:func:`write_text` to a name that a user gave: a link is followed; a pipe or device stays, and gets the text."""
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
    else:
        write_text(path.resolve(), text)


def check_writable(path: Path) -> None:
    """Before hours of work: whether a file can get this name.

    Raises:
        OSError: it is a folder, there is no folder for it, or no permission.
    """
    folder = path.resolve().parent
    if path.is_dir():
        raise OSError(errno.EISDIR, "it is a folder", str(path))
    if not folder.is_dir():
        raise OSError(errno.ENOENT, f"there is no folder {folder}", str(path))
    if not os.access(path if path.exists() and not path.is_file() else folder, os.W_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def ordinary_file(path: str | Path) -> Path:
    """``path``, where it is an ordinary file or a folder.

    Raises:
        OSError: there is nothing, or a pipe, which would be waited for, or a device, which may never end.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "it is no ordinary file", str(path))
    return Path(path)


def read_plain(path: Path) -> bytes:
    """The content of an ordinary file.

    Raises:
        OSError: it cannot be read, or is none, see :func:`ordinary_file`.
    """
    return ordinary_file(path).read_bytes()


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        OSError: see :func:`read_plain`.
        ValueError: it is not JSON, or its lists and objects stand too deep in each other.
    """
    try:
        return json.loads(read_plain(path))
    except RecursionError as error:
        raise ValueError("its lists and objects stand too deep in each other") from error


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """``content`` (of JSON types) with a checksum of itself under ``sha256``, for :func:`unsealed` to compare."""
    return {**content, SEAL: checksum_of(content)}


def unsealed(content: Any) -> dict[str, Any]:
    """What was given to :func:`sealed`.

    Raises:
        ValueError: it was changed since, or never sealed.
    """
    if not isinstance(content, dict) or content.get(SEAL) is None:
        raise ValueError("it has no checksum")
    plain = {name: value for name, value in content.items() if name != SEAL}
    if content[SEAL] != checksum_of(plain):
        raise ValueError("it does not match its checksum")
    return plain


def checksum_of(content: Any) -> str:
    """The sha256 of a value of JSON types, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """The sha256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file)


def _digest(file: IO[bytes]) -> str:  # Python 3.10
    whole = hashlib.sha256()
    while chunk := file.read(1 << 20):
        whole.update(chunk)
    return whole.hexdigest()
