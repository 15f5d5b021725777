"""Checkpoints: written atomically, verified before use; the last few and the best are kept."""

from __future__ import annotations

import logging
import pickle
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from dynaconv.errors import RunError, UserError
from dynaconv.files import CHECKSUM, TEMPORARY, read_plain, sha256_of, sync_folder, write_text, write_whole

log = logging.getLogger(__name__)

NAME = re.compile(r"epoch_(\d+)_step_(\d+)\.pt")
FORMAT = 2  # to be raised when the content of a checkpoint changes
PLAIN = (type(None), bool, int, float, str, Tensor)


class DamagedCheckpoint(Exception):  # noqa: N818 - what it is
    """A checkpoint that must not be used; the message is the reason."""


class Checkpoints:
    """The checkpoints of one run.

    A checkpoint is ``torch.save`` of nested dictionaries and lists of tensors, numbers and strings. Its checksum is in
    a file beside it, which is written first: a checkpoint under its final name always has a checksum.

    Args:
        folder: where they are; made when the first is written.
        keep: how many are kept besides the best.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self.best: str | None = None

    def save(self, state: dict[str, Any], epoch: int, step: int, best: bool) -> Path:
        """Write the checkpoint of this position and drop the oldest; returns its path.

        Raises:
            RunError: it could not be written; the ones before it are untouched.
        """
        path = self.folder / f"epoch_{epoch:04d}_step_{step:07d}.pt"
        if best:
            self.best = path.name
        if path.exists() and damage_of(path) is None:
            return path  # asked to stop right after this position was saved
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_checkpoint(path, {**state, "best_checkpoint": self.best})
        except OSError as error:
            good = next(self.newest_first(), None)
            raise RunError(
                f"Cannot write the checkpoint {path}: {error.strerror or error}. "
                f"{f'The one before it, {good.name}, is whole. ' if good else ''}"
                "Free some space, or make the folder writable, and go on with --resume auto."
            ) from error
        self._prune()
        return path

    def newest_first(self) -> Iterator[Path]:
        """The checkpoints in the folder, whether whole or not."""
        found = [(path, NAME.fullmatch(path.name)) for path in self.folder.glob("*.pt")]
        ordered = sorted(((int(m[1]), int(m[2]), path) for path, m in found if m), reverse=True)
        return (path for _, _, path in ordered)

    def find_last(self) -> Path | None:
        """The newest undamaged checkpoint, or ``None`` if there are no checkpoints; the log names damaged ones.

        Raises:
            UserError: there are checkpoints, and none is whole.
        """
        reasons = []
        for path in self.newest_first():
            reason = damage_of(path)
            if reason is None:
                return path
            reasons.append(f"{path.name}: {reason}")
            log.warning("the checkpoint %s is damaged (%s); trying the one before it", path, reason)
        if reasons:
            raise UserError(
                f"No checkpoint in {self.folder} is whole ({'; '.join(reasons)}). Remove the folder to begin anew."
            )
        return None

    def clean(self) -> None:
        """Remove the incomplete files of a killed run."""
        for path in self.folder.glob(f"*{TEMPORARY}"):
            path.unlink()
        for path in self.folder.glob(f"*{CHECKSUM}"):
            if not path.with_name(path.name.removesuffix(CHECKSUM)).exists():
                path.unlink()

    def _prune(self) -> None:
        for path in list(self.newest_first())[self.keep :]:
            if path.name != self.best:
                path.unlink()
                _checksum_file(path).unlink(missing_ok=True)


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` atomically: ``path`` is complete or does not exist, even after a crash."""
    state = {"format": FORMAT, **state}
    check_plain(state)
    path.unlink(missing_ok=True)  # a damaged checkpoint: it must go before its checksum file is replaced
    unnamed = path.with_name(path.name + ".unnamed" + TEMPORARY)
    try:
        digest = write_whole(unnamed, lambda file: torch.save(state, cast(IO[bytes], file)))
        write_text(_checksum_file(path), f"{digest}  {path.name}\n")  # as sha256sum -c reads it
        unnamed.rename(path)
        sync_folder(path.parent)
    except BaseException:
        unnamed.unlink(missing_ok=True)
        raise


def damage_of(path: Path) -> str | None:
    """Why a checkpoint must not be used, or ``None`` if it is whole."""
    if not path.is_file():
        return "there is no such file"
    if path.stat().st_size == 0:
        return "it is empty"
    try:
        expected = read_plain(_checksum_file(path)).decode().split()[0]
    except (OSError, IndexError, ValueError):
        return f"its checksum {_checksum_file(path).name} is missing"
    try:
        found = sha256_of(path)
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"
    if found != expected:
        return f"its content ({path.stat().st_size:,} bytes) does not match its checksum"
    return None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Verify the checksum of a checkpoint and load it onto the CPU; no code in the file is run.

    Raises:
        DamagedCheckpoint: with the reason.
    """
    reason = damage_of(path)
    if reason is not None:
        raise DamagedCheckpoint(reason)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of foreign pickles, which are refused just below
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise DamagedCheckpoint(f"it is no checkpoint of plain types: {str(error).splitlines()[0]}") from error
    found = state.pop("format", None) if isinstance(state, dict) else None
    if found != FORMAT:
        raise DamagedCheckpoint(f"another version of dynaconv wrote it (its format is {found}, expected {FORMAT})")
    return cast(dict[str, Any], state)


def check_plain(value: Any, where: str = "state") -> None:
    """Raise TypeError with the place of anything that ``torch.load(weights_only=True)`` would refuse."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, (str, int)):
                raise TypeError(f"{where} has the key {key!r} of type {type(key).__name__}; expected str or int")
            check_plain(inner, f"{where}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            check_plain(inner, f"{where}[{index}]")
    elif type(value) not in PLAIN and not isinstance(value, Tensor):
        raise TypeError(f"{where} is a {type(value).__name__}; checkpoints hold tensors and plain types only")


def _checksum_file(path: Path) -> Path:
    return path.with_name(path.name + CHECKSUM)
