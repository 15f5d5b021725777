"""Files that a user names and what is printed, where the disk is full or the name is no ordinary file's."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from dynaconv.analysis.routes import inspect
from dynaconv.bench import figure
from dynaconv.cli import main
from dynaconv.errors import RunError
from dynaconv.export import export
from dynaconv.files import check_writable, write_output

SOURCES = Path(__file__).resolve().parents[2] / "src"


@contextmanager
def small_disk(most: int) -> Iterator[None]:
    """No file may be larger."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def full(path: Path) -> None:
    """Let the next writer of this file find the disk full."""
    path.with_name(path.name + ".tmp").symlink_to("/dev/full")


def test_a_device_stays_a_device(tmp_path: Path) -> None:
    """``--out /dev/null``, typed by root, once replaced the device by a file."""
    link = tmp_path / "out.csv"
    link.symlink_to("/dev/null")
    write_output(link, "text")
    assert link.is_symlink()
    assert list(tmp_path.iterdir()) == [link]


def test_a_pipe_gets_the_text_and_a_link_is_followed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()), daemon=True)
    reader.start()
    write_output(tmp_path / "pipe", "text")
    reader.join(20)
    assert read == ["text"]
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_output(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "text"


def test_a_name_that_cannot_be_written_is_said_before_the_work(tmp_path: Path, capsys: Any) -> None:
    for path, reason in ((tmp_path, "it is a folder"), (tmp_path / "no" / "x.csv", "there is no folder")):
        assert main(["predict", "no-run", str(tmp_path / "no.png"), "--out", str(path), "--format", "csv"]) == 2
        assert f"Cannot write --out {path}: {reason}" in capsys.readouterr().err
    check_writable(tmp_path / "x.csv")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_behind_what_is_printed() -> None:
    with open("/dev/full", "w") as disk:
        done = subprocess.run(
            [sys.executable, "-m", "dynaconv", "list"],
            env={**os.environ, "PYTHONPATH": str(SOURCES)},
            stdout=disk,
            stderr=subprocess.PIPE,
            text=True,
            timeout=100,
            check=False,
        )
    assert (done.returncode, done.stderr.strip()) == (
        1,
        "dynaconv: Cannot write a file, or what is printed: No space left on device.",
    )


@pytest.mark.parametrize(("name", "to"), [("x.onnx", "onnx"), ("x.pt2", "torch-export")])
def test_a_full_disk_under_export(name: str, to: str, tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with small_disk(500), pytest.raises(RunError, match=rf"Cannot write .*{name}: File too large"):
        export(network, tmp_path / name, to=to, image_size=8)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_under_inspect(tmp_path: Path) -> None:
    class Found:
        def plain(self) -> dict[str, int]:
            return {"x": 1}

    full(tmp_path / "inspect.json")
    with pytest.raises(RunError, match=r"Cannot write into .*: No space left on device"):
        inspect.write_inspection(Found(), tmp_path)  # type: ignore[arg-type]


def test_a_full_disk_under_a_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Drawn:
        def savefig(self, file: Any, **_: Any) -> None:
            file.write(b"picture")

    monkeypatch.setattr(figure, "draw", lambda points: Drawn())
    full(tmp_path / "x.png")
    with pytest.raises(RunError, match=r"Cannot write .*x\.png: No space left on device"):
        figure.save([], tmp_path / "x.png")
    figure.save([], tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes() == b"picture"
