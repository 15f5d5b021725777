"""Raw results of a study in one file, shared by processes and machines, and the runs' claims."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dynaconv.analysis.arms import Arm
from dynaconv.analysis.runs import RunResult
from dynaconv.errors import RunError, UserError, differences, shortened
from dynaconv.files import checksum_of, read_json, write_text
from dynaconv.train.run_folder.lock import FolderInUse, FolderLock

FORMAT = 1
CHECKSUMS = "checksums"
PARTS = ("facts", "arms", "measured", "results", CHECKSUMS)
LOCK_POLL = 0.2  # seconds


class Raw:
    """The file of a study's raw results, in plain JSON; small enough to be kept in a project.

    Layout::

        study, facts     what all results share: data, sizes, recipe, network
        arms             of every arm: label, model, training; parameters and multiply-adds; of a widened one its width
        measured         of every arm: time and memory, see :mod:`dynaconv.analysis.measure`
        results          by arm and seed: :class:`~dynaconv.analysis.runs.RunResult` and what computed it
        checksums        of the facts, of every arm, measurement and result; what has none is not checked

    Args:
        path: of the file.
        study: the study's name; "" to read the file of any study.
    """

    def __init__(self, path: Path, study: str) -> None:
        self.path, self.study = path, study

    def read(self) -> dict[str, Any]:
        """The whole content; that of an empty study where there is no file.

        Raises:
            UserError: it is not such a file, or it was changed since it was written.
        """
        empty = {"format": FORMAT, "study": self.study, **{part: {} for part in PARTS}}
        try:
            content = read_json(self.path)
        except (FileNotFoundError, NotADirectoryError):
            if self.path.is_symlink():
                raise UserError(f"The raw results {self.path} are a link to nothing. Restore the file.") from None
            return empty
        except (ValueError, OSError) as error:
            raise UserError(f"The raw results {self.path} cannot be read: {error}. Restore the file.") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT or "results" not in content:
            raise UserError(f"{self.path} is no file of raw results of 'dynaconv ablate'; choose another --raw.")
        study = content.get("study")
        if self.study and study != self.study:
            raise UserError(f"{self.path} holds the study {study!r}, and this is {self.study!r}; choose another --raw.")
        content = {**empty, **content}
        wrong = _changed(content)
        if wrong:
            raise UserError(
                f"{self.path} is damaged: {shortened(wrong)} cannot be as it was written. Restore the file. "
                "(What you changed on purpose is not checked once its entry in 'checksums' is removed.)"
            )
        return content

    def write(self, content: Mapping[str, Any]) -> None:
        """Write the whole file.

        Raises:
            RunError: the disk is full, or the folder is not writable.
        """
        content = {**content, CHECKSUMS: {name: checksum_of(value) for name, value in _named_parts(content)}}
        text = json.dumps(content, indent=1, sort_keys=False) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.path, text)
        except OSError as error:
            raise RunError(
                f"Cannot write {self.path}: {error.strerror or error}. Make room, and repeat the command: it goes on "
                "with what is missing."
            ) from error

    def results(self) -> dict[str, list[RunResult]]:
        """Of every arm that has some, by its slug, by rising seed."""
        return {
            slug: [RunResult.of(_without_about(by_seed[seed])) for seed in sorted(by_seed, key=int)]
            for slug, by_seed in self.read()["results"].items()
        }

    def result(self, slug: str, seed: int) -> RunResult | None:
        """Of one run; None if it has not ended."""
        plain = self.read()["results"].get(slug, {}).get(str(seed))
        return None if plain is None else RunResult.of(_without_about(plain))


def _named_parts(content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What has a checksum of its own, so that processes of several versions can add to one file."""
    yield "facts", content["facts"]
    for part in ("arms", "measured"):
        for slug, value in content[part].items():
            yield f"{part}/{slug}", value
    for slug, by_seed in content["results"].items():
        for seed, value in by_seed.items():
            yield f"results/{slug}/{seed}", value


def _changed(content: Mapping[str, Any]) -> list[str]:
    """Names of the parts that are of another type, or not what their checksum is of."""
    tables = {**{part: content[part] for part in PARTS}, **_dictionary(content["results"])}
    wrong = [name for name, value in tables.items() if not isinstance(value, dict)]
    if wrong:
        return wrong
    parts, checksums = dict(_named_parts(content)), content[CHECKSUMS]
    return [name for name, value in parts.items() if not _is_whole(name, value, checksums.get(name))]


def _is_whole(name: str, value: Any, checksum: str | None) -> bool:
    if not isinstance(value, dict) or (checksum is not None and checksum != checksum_of(value)):
        return False
    if not name.startswith("results/"):
        return True
    try:
        RunResult.of(_without_about(value)).correctness()
        return name.rpartition("/")[2].isdecimal()
    except (KeyError, TypeError, ValueError):
        return False


def _dictionary(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def take_known(content: dict[str, Any], path: Path, seeds: Sequence[int], defaults: Mapping[str, Any]) -> None:
    """Take results of another study, of arms that are the same network with the same training on the same data.

    Each keeps what computed it, and the name of the study that it is from. What ``content`` has is not replaced.

    Args:
        content: of a raw file, its facts and arms complete; changed in place.
        path: of the other study's raw file.
        seeds: take the results of these.
        defaults: of settings that the other file may be too old to have.

    Raises:
        UserError: no such file; its results are of other data or another recipe.
    """
    if not path.is_file():
        raise UserError(f"There are no raw results at {path} (--known).")
    other = Raw(path, "").read()
    wrong = differences({**defaults, **other["facts"]}, content["facts"])
    if wrong:
        raise UserError(f"The results of {path} cannot be taken (--known), other settings: {shortened(wrong)}.")
    for slug, arm in content["arms"].items():
        own = content["results"].setdefault(slug, {})
        for name in (name for name, its in other["arms"].items() if _what(its) == _what(arm)):
            for seed, result in other["results"].get(name, {}).items():
                if int(seed) in seeds and seed not in own:
                    own[seed] = {**result, "about": {**result["about"], "study": other["study"]}}


def _what(arm: Mapping[str, Any]) -> tuple[Any, ...]:
    """What makes two arms the same run."""
    return tuple(arm.get(name) for name in ("model", "training", "begins_from"))


def _without_about(plain: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in plain.items() if name != "about"}


class StudyFolder:
    """The folder in which processes work on one study; several at a time, also on several machines that share it.

    Layout::

        raw.json                    the results (or elsewhere: ``raw``)
        claims/static-seed0/.lock   held by the process that does this run; the system frees it when the process ends
        runs/static-seed0/          the run: checkpoints while it lasts, then weights and log
        ablate.json, .md, .csv      the table

    Args:
        path: of the folder.
        raw: the file of the results.
        about: what computes here: versions, device, threads; kept with every result.
    """

    def __init__(self, path: Path, raw: Raw, about: Mapping[str, Any]) -> None:
        self.path, self.raw, self._about = path, raw, dict(about)

    def run_folder(self, arm: Arm, seed: int) -> Path:
        """The folder of one run."""
        return self.path / "runs" / f"{arm.slug}-seed{seed}"

    def result(self, arm: Arm, seed: int) -> RunResult | None:
        """A finished run's result, whoever did it."""
        return self.raw.result(arm.slug, seed)

    def keep_result(self, arm: Arm, result: RunResult) -> None:
        """Add a result to the raw file."""
        self._add(arm, result, self._about)

    def copy_result(self, arm: Arm, twin: Arm, result: RunResult) -> None:
        """Add the result of an equal arm as this one's; what computed it stays with it."""
        about = self.raw.read()["results"][twin.slug][str(result.seed)].get("about", self._about)
        self._add(arm, result, about)

    def _add(self, arm: Arm, result: RunResult, about: Mapping[str, Any]) -> None:
        with self.alone():
            content = self.raw.read()
            content["results"].setdefault(arm.slug, {})[str(result.seed)] = {**result.plain(), "about": dict(about)}
            self.raw.write(content)

    @contextmanager
    def claim(self, arm: Arm, seed: int) -> Iterator[bool]:
        """Claim a run as long as the context lasts; False if another process has it."""
        place = self.path / "claims" / f"{arm.slug}-seed{seed}"
        lock = FolderLock(place)
        try:
            place.mkdir(parents=True, exist_ok=True)
            lock.__enter__()
        except FolderInUse:
            yield False
            return
        except OSError as error:
            raise RunError(
                f"Cannot write {place}: {error.strerror or error}. Make room; repeat the command."
            ) from error
        try:
            yield True
        finally:
            lock.__exit__()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other process changes the raw file, and keep the others from it."""
        lock = FolderLock(self.path)
        while True:
            try:
                lock.__enter__()
                break
            except FolderInUse:
                time.sleep(LOCK_POLL)
        try:
            yield
        finally:
            lock.__exit__()

    def create(self) -> None:
        """Create the folder.

        Raises:
            UserError: it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / "claims").mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"Cannot write to --out {self.path}: {error.strerror or error}.") from error
