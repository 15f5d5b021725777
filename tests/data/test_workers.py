"""Loader workers that are killed or hang: an error within the timeout, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL.Image import Image

from dynaconv.data import BadImages, decode
from dynaconv.errors import RunError, UserError
from dynaconv.tasks.classification import Preprocess
from dynaconv.tasks.classification.prediction import plain_batches
from tasks.pictures import write_pictures

PREPROCESS = Preprocess(image_size=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@dataclass
class Trouble:
    """Pictures of which one brings its reader to grief."""

    paths: list[Path]
    grief: str
    labels: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.labels = [0] * len(self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, index: int) -> Image:
        if index == len(self.paths) // 2:
            if self.grief == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(2000)  # until it is ended
        return decode(self.paths[index])

    def name(self, index: int) -> str:
        return str(self.paths[index])


@pytest.mark.parametrize(
    ("grief", "timeout", "message"),
    [("killed", 400, r"worker died \("), ("hung", 3, "gave no batch for 3 s")],
)
def test_error_within_the_timeout(tmp_path: Path, grief: str, timeout: float, message: str) -> None:
    source = Trouble(write_pictures(tmp_path, 16), grief)
    batches = plain_batches(source, PREPROCESS, batch_size=2, workers=2, timeout=timeout)
    with pytest.raises(RunError, match=message):
        list(batches)
    batches.close()


@pytest.mark.timeout(func_only=True, method="thread")  # the other method is an alarm too
@pytest.mark.parametrize("policy", ["error", "skip"])
def test_a_picture_that_blocks_without_workers(policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that took the place of a picture after the look at it; a disk that does not answer blocks like it."""
    paths = write_pictures(tmp_path, 4)
    paths[2].unlink()
    os.mkfifo(paths[2])
    monkeypatch.setattr(os.path, "isfile", lambda path: True)
    source = Trouble(paths, "none")
    source.image = lambda index: decode(paths[index])  # type: ignore[method-assign]
    bad = BadImages(policy, 3)
    batches = plain_batches(source, PREPROCESS, batch_size=2, workers=0, timeout=0.5, bad_images=bad)
    if policy == "error":
        with pytest.raises(UserError, match=r"002\.png: it could not be read within 0 s"):
            list(batches)
    else:
        assert sum(len(labels) for _, labels in batches) == 3
        assert list(bad.reasons) == [str(paths[2])]
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


@pytest.mark.timeout(func_only=True, method="thread")
def test_a_source_that_blocks_without_workers(tmp_path: Path) -> None:
    source = Trouble(write_pictures(tmp_path, 4), "hung")
    with pytest.raises(RunError, match="gave no batch for 1 s"):
        list(plain_batches(source, PREPROCESS, batch_size=2, workers=0, timeout=1))


@pytest.mark.timeout(func_only=True, method="thread")
def test_a_process_that_was_suspended_has_not_waited(tmp_path: Path) -> None:
    """After Ctrl-Z and fg, however long it lasted, the run goes on."""
    source = Trouble(write_pictures(tmp_path, 8), "none")
    source.image = lambda index: (time.sleep(0.1), decode(source.paths[index]))[1]  # type: ignore[method-assign]
    batches = plain_batches(source, PREPROCESS, batch_size=2, workers=0, timeout=1)
    began, own = time.monotonic(), os.getpid()
    with subprocess.Popen(["sh", "-c", f"sleep 0.2; kill -STOP {own}; sleep 2; kill -CONT {own}"]):
        seen = sum(len(images) for images, _ in batches)
    assert seen == 8
    assert time.monotonic() - began > 2  # it was suspended


def test_a_signal_to_the_whole_group_leaves_the_workers_to_their_parent(tmp_path: Path) -> None:
    source = Trouble(write_pictures(tmp_path, 16), "none")
    source.image = lambda index: (time.sleep(0.02), decode(source.paths[index]))[1]  # type: ignore[method-assign]
    batches = plain_batches(source, PREPROCESS, batch_size=2, workers=2)
    seen = 0
    for images, _ in batches:
        if not seen:
            for worker in batches.worker_ids():
                os.kill(worker, signal.SIGTERM)
                os.kill(worker, signal.SIGINT)
        seen += len(images)
    assert seen == 16
    workers = batches.worker_ids()
    assert len(workers) == 2
    batches.close()
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)
