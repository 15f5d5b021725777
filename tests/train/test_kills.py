"""SIGKILL at random moments of a run that writes a checkpoint after every step: nothing is lost, nothing is half."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from train.forked import start
from train.test_resume import assert_equal_runs
from train.tiny import newest

from dynaconv.train.checkpoint import damage_of

OFTEN = {"settings": {"checkpoint_every": 1, "keep": 3, "epochs": 3}}


def kill_and_look(out: Path, seconds: float, **options: object) -> str:
    """Start (or go on with) the run, kill it after some time, and check what it left; answer the newest checkpoint."""
    process = start(out, **{**OFTEN, **options})
    time.sleep(seconds)
    if process.is_alive():
        os.kill(process.pid or 0, signal.SIGKILL)
    process.join(60)
    assert process.exitcode in (-signal.SIGKILL, 0)
    checkpoints = sorted((out / "checkpoints").glob("*.pt")) if (out / "checkpoints").is_dir() else []
    assert [path.name for path in checkpoints if damage_of(path) is not None] == []
    return checkpoints[-1].name if checkpoints else ""


def finish(out: Path, **options: object) -> None:
    process = start(out, **{**OFTEN, **options})
    process.join(100)
    assert process.exitcode == 0
    assert list(out.rglob("*.tmp")) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_twenty_kills(tmp_path: Path) -> None:
    moments = random.Random(20191)
    finish(tmp_path / "unstopped")
    kills, runs = 0, 0
    while kills < 20:
        out = tmp_path / f"killed-{runs}"
        last = ""
        for _ in range(6):
            reached = kill_and_look(out, moments.uniform(0.3, 1.6))
            kills += 1
            assert reached >= last, "a kill took the run back behind a checkpoint that was whole"
            last = reached
        finish(out)
        assert_equal_runs(tmp_path / "unstopped", out)
        runs += 1


@pytest.mark.slow
def test_killed_with_workers_and_begun_again_at_once(tmp_path: Path) -> None:
    """The orphaned workers live on for some seconds and must not hold the folder."""
    out = tmp_path / "run"
    options = {"data": {"workers": 2}, "settings": {**OFTEN["settings"], "epochs": 30}}
    process = start(out, **options)
    deadline = time.monotonic() + 60
    while not list(out.glob("checkpoints/epoch_0001*.pt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join(60)
    before = newest(out).name
    again = start(out, **options)
    deadline = time.monotonic() + 60
    while newest(out).name <= before and again.is_alive() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert newest(out).name > before
    os.kill(again.pid or 0, signal.SIGTERM)
    again.join(60)
    assert again.exitcode == 143
