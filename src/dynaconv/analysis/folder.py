"""The output folder of a comparison: locked by one process, for one set of settings, with files written atomically."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dynaconv.analysis.arms import Arm
from dynaconv.analysis.measure import Measurement, Timing
from dynaconv.analysis.runs import RunResult
from dynaconv.errors import RunError, UserError, differences, shortened
from dynaconv.files import read_json, sealed, unsealed, write_text, write_whole
from dynaconv.train.run_folder.lock import FolderLock

SETTINGS = "settings.json"
RESULT = "result.json"
MEASURED = "measured.json"
ANEW = "Remove it, and it is made anew."


class CompareFolder:
    """Layout::

    settings.json              what all runs have in common
    measured.json              time and memory of the networks
    runs/dynamic-k4-seed0/     one run: result.json, weights, log
    compare.json, .csv, .md    the result
    compare.png, .pdf          the picture
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def held(self, facts: dict[str, Any]) -> Iterator[None]:
        """Create the folder, lock it, and check that its results have these settings.

        Raises:
            UserError: it cannot be written, another process holds it, or its results have other settings.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_text(self.path / ".writable", "")
            (self.path / ".writable").unlink()
        except OSError as error:
            raise UserError(f"Cannot write to --out {self.path}: {error.strerror or error}.") from error
        with FolderLock(self.path):
            self._check(facts)
            yield

    def run_folder(self, arm: Arm, seed: int) -> Path:
        """The folder of one run."""
        return self.path / "runs" / f"{arm.slug}-seed{seed}"

    def result(self, arm: Arm, seed: int) -> RunResult | None:
        """A finished run's result."""
        plain = self._read(self.run_folder(arm, seed) / RESULT)
        with _of_this_version(self.run_folder(arm, seed) / RESULT):
            return None if plain is None else RunResult.of(plain)

    def keep_result(self, arm: Arm, result: RunResult) -> None:
        """Write a run's result."""
        self._write_sealed(self.run_folder(arm, result.seed) / RESULT, result.plain())

    def copy_result(self, arm: Arm, twin: Arm, result: RunResult) -> None:
        """Write the result of an equal arm as this one's."""
        self.keep_result(arm, result)

    @contextmanager
    def claim(self, arm: Arm, seed: int) -> Iterator[bool]:
        """Every run is this process's, which holds the folder."""
        yield True

    def measured(self, arms: Sequence[Arm]) -> list[Measurement] | None:
        """The measurements, if exactly these networks were measured together; 0.2 did not freeze them."""
        plain = self._read(self.path / MEASURED)
        if plain is None or list(plain) != [arm.slug for arm in arms]:
            return None
        with _of_this_version(self.path / MEASURED):
            if any("frozen" not in one for one in plain.values()):
                return None
            return [
                Measurement(_timing(one["step"]), _timing(one["latency"]), int(one["step_bytes"]), bool(one["frozen"]))
                for one in plain.values()
            ]

    def keep_measured(self, arms: Sequence[Arm], measured: Sequence[Measurement]) -> None:
        """Write the measurements."""
        plain = {arm.slug: asdict(one) for arm, one in zip(arms, measured, strict=True)}
        self._write_sealed(self.path / MEASURED, plain)

    def write(self, path: Path, text: str) -> None:
        """Write a whole file.

        Raises:
            RunError: the disk is full, or the folder has become unwritable.
        """
        self.write_bytes(path, (text + "\n").encode())

    def write_bytes(self, path: Path, content: bytes) -> None:
        """:meth:`write` for bytes."""
        try:
            write_whole(path, lambda file: file.write(content))
        except OSError as error:
            raise RunError(
                f"Cannot write {path}: {error.strerror or error}. Make room, and repeat the command: it goes on with "
                "what is missing."
            ) from error

    def _check(self, facts: dict[str, Any]) -> None:
        here = json.loads(json.dumps(facts))
        there = self._read(self.path / SETTINGS)
        if there is None:
            self._write_sealed(self.path / SETTINGS, here)
            return
        wrong = differences(there, here)
        if wrong:
            raise UserError(
                f"{self.path} holds a comparison with other settings: {shortened(wrong)}. Repeat its command "
                "to go on with it (methods, experts and seeds may be added), or choose another --out."
            )

    def _write_sealed(self, path: Path, plain: dict[str, Any]) -> None:
        # through JSON first: the checksum is that of what will be read
        self.write(path, json.dumps(sealed(json.loads(json.dumps(plain))), indent=1))

    def _read(self, path: Path) -> dict[str, Any] | None:
        """What :meth:`_write_sealed` wrote; None if there is nothing."""
        if not os.path.lexists(path):
            return None
        try:
            return unsealed(read_json(path))
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror or error}. {ANEW}") from error
        except ValueError as error:
            raise UserError(f"{path} is damaged, or was changed by hand: {error}. {ANEW}") from error


@contextmanager
def _of_this_version(path: Path) -> Iterator[None]:
    """Turn the errors of whole content that is not what this version writes into a message."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path} is not what this version of dynaconv writes ({type(error).__name__}: {error}). {ANEW}"
        ) from error


def _timing(plain: dict[str, Any]) -> Timing:
    return Timing(**{**plain, "ratio_quartiles": tuple(plain["ratio_quartiles"])})
