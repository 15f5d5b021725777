"""The index of a tar file, with a check that the file is complete."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dynaconv.errors import UserError

BLOCK = 512


@dataclass(frozen=True)
class TarMember:
    """Where a file's bytes are in an uncompressed tar file."""

    name: str
    offset: int
    size: int


def tar_members(path: Path) -> Iterator[TarMember]:
    """The regular files of a tar file in order; links and devices are left out, and nothing is ever unpacked.

    Python's ``tarfile`` takes a damaged or cut header behind the first member for the end of the file, and drops the
    rest in silence. Here the end must be the mark that every tar writer puts there: zeros, up to the end of the file.

    Raises:
        UserError: it cannot be read, or is not a whole, uncompressed tar file; with the offset of the damage.
    """
    if not path.is_file():
        raise UserError(f"{path} is not an ordinary file; expected a tar file.")
    try:
        with tarfile.open(path, "r:") as archive:
            for entry in archive:
                if entry.isfile():
                    yield TarMember(entry.name, entry.offset_data, entry.size)
            end = archive.offset
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise UserError(f"{path} is not a whole, uncompressed tar file: {error}.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    _check_end(path, end)


def _check_end(path: Path, end: int) -> None:
    with open(path, "rb") as file:
        file.seek(end)
        block = file.read(BLOCK)
        if len(block) < BLOCK:
            raise UserError(
                f"{path} is not a whole tar file: it is cut off at offset {end + len(block):,}, where a header or the "
                "end mark is missing. Fetch or write it again."
            )
        while block and not any(block):
            end += len(block)
            block = file.read(BLOCK)
        if block:
            raise UserError(
                f"{path} is not a whole tar file: at offset {end:,} there is neither a header nor its end. It is "
                "damaged there, or several tar files were joined. Fetch or write it again."
            )
