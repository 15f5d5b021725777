"""Checkpoint files: whole or not there, checked before they are believed, pruned, free of code."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dynaconv.errors import UserError
from dynaconv.files import CHECKSUM
from dynaconv.train import fit
from dynaconv.train.run_folder.checkpoint import (
    Checkpoints,
    DamagedCheckpoint,
    check_plain,
    damage_of,
    read_checkpoint,
    write_checkpoint,
)
from train.tiny import digits, newest, settings, tiny

STATE = {"position": {"epoch": 1}, "tensor": torch.arange(1000.0), "list": [1, 2.5, "x", None, True]}


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def lose_checksum(path: Path) -> None:
    path.with_name(path.name + CHECKSUM).unlink()


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (flip_a_byte, "does not match its checksum"),
    (truncate, "does not match its checksum"),
    (empty, "it is empty"),
    (lose_checksum, "checksum .* is missing"),
]


def test_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    write_checkpoint(path, STATE)
    back = read_checkpoint(path)
    assert torch.equal(back.pop("tensor"), STATE["tensor"])
    assert back == {key: value for key, value in STATE.items() if key != "tensor"}
    assert torch.load(path, weights_only=True)["list"] == STATE["list"]


def test_checksum_is_what_sha256sum_reads(tmp_path: Path) -> None:
    import hashlib

    path = tmp_path / "a.pt"
    write_checkpoint(path, STATE)
    digest, name = (tmp_path / "a.pt.sha256").read_text().split()
    assert name == "a.pt"
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(("damage", "reason"), DAMAGES)
def test_damage_is_named(tmp_path: Path, damage: Callable[[Path], None], reason: str) -> None:
    path = tmp_path / "a.pt"
    write_checkpoint(path, STATE)
    damage(path)
    with pytest.raises(DamagedCheckpoint, match=reason):
        read_checkpoint(path)


def test_flipped_byte_would_have_been_loaded_by_torch(tmp_path: Path) -> None:
    """Why there is a checksum at all."""
    path = tmp_path / "a.pt"
    write_checkpoint(path, STATE)
    flip_a_byte(path)
    assert not torch.equal(torch.load(path, weights_only=True)["tensor"], STATE["tensor"])


@pytest.mark.parametrize(("damage", "reason"), DAMAGES)
def test_resume_goes_on_from_the_one_before(
    tmp_path: Path, damage: Callable[[Path], None], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "run"
    fit(tiny(), digits(), settings(epochs=2), out=out)
    last = newest(out)
    damage(last)
    with caplog.at_level(logging.WARNING, logger="dynaconv"):
        result = fit(tiny(seed=3), digits(), settings(epochs=2), out=out, resume="auto")
    assert f"{last.name} is damaged" in caplog.text
    assert len(result.history) == 2
    assert damage_of(newest(out)) is None
    assert newest(out).name == last.name


def test_nothing_whole_is_an_error_and_not_a_new_start(tmp_path: Path) -> None:
    fit(tiny(), digits(), settings(epochs=1), out=tmp_path)
    for path in (tmp_path / "checkpoints").glob("*.pt"):
        truncate(path)
    with pytest.raises(UserError, match=r"No checkpoint in .* is whole \(epoch_0001.*does not match"):
        fit(tiny(), digits(), settings(epochs=1), out=tmp_path, resume="auto")


class Evil:
    """Runs code when it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.victim),))


@pytest.mark.parametrize("as_zip", [True, False])
def test_a_pickle_that_runs_code_is_refused(tmp_path: Path, as_zip: bool) -> None:
    import hashlib

    path, victim = tmp_path / "evil.pt", tmp_path / "executed"
    if as_zip:
        torch.save({"model": Evil(victim)}, path)
    else:
        path.write_bytes(pickle.dumps(Evil(victim)))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(path.name + CHECKSUM).write_text(f"{digest}  evil.pt\n")
    with pytest.raises(DamagedCheckpoint, match="no checkpoint of plain types"):
        read_checkpoint(path)
    assert not victim.exists()
    torch.load(path, weights_only=False) if as_zip else pickle.loads(path.read_bytes())
    assert victim.exists(), "the pickle was not dangerous, so the test showed nothing"


def test_only_plain_types_are_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"state\['a'\]\[1\] is a Path|PosixPath"):
        write_checkpoint(tmp_path / "a.pt", {"a": [1, tmp_path]})
    assert list(tmp_path.iterdir()) == []
    check_plain({"a": (1, [torch.ones(1)])})


def test_the_last_few_and_the_best_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in range(6):
        checkpoints.save({"step": step}, 0, step, best=step == 1)
    assert [path.name for path in checkpoints.newest_first()] == [
        "epoch_0000_step_0000005.pt",
        "epoch_0000_step_0000004.pt",
        "epoch_0000_step_0000001.pt",
    ]
    assert len(list(tmp_path.glob(f"*{CHECKSUM}"))) == 3
    newest_state = read_checkpoint(tmp_path / "epoch_0000_step_0000005.pt")
    assert newest_state["best_checkpoint"] == "epoch_0000_step_0000001.pt"


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save({"step": 1}, 0, 1, best=False)
    (tmp_path / "epoch_0000_step_0000002.pt.unnamed.tmp").write_bytes(b"half")
    (tmp_path / "epoch_0000_step_0000002.pt.sha256").write_text("orphan")
    checkpoints.clean()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "epoch_0000_step_0000001.pt",
        "epoch_0000_step_0000001.pt.sha256",
    ]
