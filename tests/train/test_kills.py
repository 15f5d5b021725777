"""SIGKILL at random moments of a run that writes a checkpoint after every step: nothing is lost, nothing is half."""

from __future__ import annotations

import os
import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from dynaconv.train.run_folder.checkpoint import damage_of
from train.forked import start
from train.test_resume import assert_equal_runs
from train.tiny import newest

OFTEN = {"settings": {"checkpoint_every": 1, "keep": 3}, "data": {"batch_size": 8}}  # 72 steps
PATIENCE = 300  # seconds: a loaded machine is slow, and no defect


def wait_for_another_checkpoint(out: Path, process: BaseProcess, last: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while process.is_alive() and time.monotonic() < deadline:
        if any(path.name > last for path in out.glob("checkpoints/*.pt")):
            return
        time.sleep(0.01)


def kill_and_look(out: Path, last: str, moment: float) -> tuple[str, bool]:
    """Go on with the run, kill it some time after it has got further than ``last``, and check what it left.

    Returns the newest checkpoint, and whether the run was killed (and did not end by itself before).
    """
    process = start(out, **OFTEN)
    wait_for_another_checkpoint(out, process, last)
    time.sleep(moment)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join(60)
    assert process.exitcode in (-signal.SIGKILL, 0)
    checkpoints = sorted((out / "checkpoints").glob("*.pt"))
    assert [path.name for path in checkpoints if damage_of(path) is not None] == []
    assert checkpoints[-1].name > last, "a kill took the run back behind a checkpoint that was whole"
    return checkpoints[-1].name, process.exitcode != 0


def finish(out: Path) -> None:
    process = start(out, **OFTEN)
    process.join(PATIENCE)
    assert process.exitcode == 0
    assert list(out.rglob("*.tmp")) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_kills(tmp_path: Path) -> None:
    moments = random.Random(20191)
    finish(tmp_path / "unstopped")
    kills = runs = 0
    while kills < 20:
        out, last = tmp_path / f"killed-{runs}", ""
        for _ in range(5):
            last, killed = kill_and_look(out, last, moments.uniform(0, 0.15))
            kills += killed
            if not killed:
                break
        finish(out)
        assert_equal_runs(tmp_path / "unstopped", out)
        runs += 1
        assert runs < 12, "the runs end before they can be killed"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_with_workers_and_begun_again_at_once(tmp_path: Path) -> None:
    """The orphaned workers live on for some seconds and must not hold the folder."""
    out = tmp_path / "run"
    options = {"data": {"workers": 2}, "settings": {"checkpoint_every": 1, "epochs": 30}}
    process = start(out, **options)
    deadline = time.monotonic() + PATIENCE
    while not list(out.glob("checkpoints/epoch_0001*.pt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join(60)
    before = newest(out).name
    again = start(out, **options)
    deadline = time.monotonic() + PATIENCE
    while newest(out).name <= before and again.is_alive() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert newest(out).name > before
    os.kill(again.pid or 0, signal.SIGTERM)
    again.join(PATIENCE)
    assert again.exitcode == 143
