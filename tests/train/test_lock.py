"""Two runs with one output folder: the second is refused; the lock of a dead run is none."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from dynaconv.errors import UserError
from dynaconv.train.run_folder.lock import FolderInUse, FolderLock


def hold(folder: str, ready: Connection) -> None:
    """In another process: hold the lock until killed."""
    with FolderLock(Path(folder)):
        ready.send(os.getpid())
        signal.pause()


def hold_with_a_child(folder: str, ready: Connection) -> None:
    """The same, with a child that outlives the holder, as loader workers do."""
    with FolderLock(Path(folder)):
        if os.fork() == 0:
            ready.send(os.getpid())
            signal.pause()
        signal.pause()


@pytest.mark.parametrize("holder", [hold, hold_with_a_child])
def test_refused_while_held_and_free_after_a_kill(tmp_path: Path, holder: object) -> None:
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=holder, args=(str(tmp_path), there))  # type: ignore[arg-type]
    process.start()
    assert here.poll(400)
    living = here.recv()
    with pytest.raises(
        UserError, match=rf"Another run is writing to .* \(process {process.pid} on .*choose another --out"
    ):
        FolderLock(tmp_path).__enter__()
    os.kill(process.pid or 0, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid or 0, os.WEXITED | os.WNOWAIT)
    with FolderLock(tmp_path):
        pass
    if living != process.pid:
        os.kill(living, signal.SIGKILL)
    process.join(400)


def test_removing_the_lock_file_lets_no_second_run_in(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=hold_with_a_child, args=(str(tmp_path), there))
    process.start()
    assert here.poll(400)
    living = here.recv()
    (tmp_path / ".lock").unlink()
    with pytest.raises(UserError, match="Another run is writing to"):
        FolderLock(tmp_path).__enter__()
    os.kill(process.pid or 0, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid or 0, os.WEXITED | os.WNOWAIT)
    with FolderLock(tmp_path):  # the child lives, and holds nothing
        pass
    os.kill(living, signal.SIGKILL)
    process.join(400)


@pytest.mark.parametrize("what", ["pipe", "folder", "loop"])
def test_what_cannot_be_a_lock(tmp_path: Path, what: str) -> None:
    path = tmp_path / ".lock"
    {"pipe": os.mkfifo, "folder": os.mkdir, "loop": lambda path: os.symlink(path, path)}[what](path)
    with pytest.raises(UserError, match=r"\.lock cannot be opened to lock the folder: "):
        FolderLock(tmp_path).__enter__()


def test_refused_within_one_process(tmp_path: Path) -> None:
    with FolderLock(tmp_path), pytest.raises(UserError, match="This process already has a run"):
        FolderLock(tmp_path).__enter__()
    with FolderLock(tmp_path):
        pass


def test_other_folders_are_free(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with FolderLock(tmp_path / "a"), FolderLock(tmp_path / "b"):
        assert (tmp_path / "a" / ".lock").is_file()


def test_a_full_disk_is_no_lost_lock(tmp_path: Path) -> None:
    """Who holds the lock cannot be noted then; the lock holds all the same, and the run itself speaks of the disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with FolderLock(tmp_path) as lock:
            lock.check()
            with pytest.raises(FolderInUse):
                FolderLock(tmp_path).__enter__()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
