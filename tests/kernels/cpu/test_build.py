"""The kernels are compiled once and kept; whatever goes wrong with that, there is a reason and no exception."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dynaconv.kernels.cpu import build

SOURCE = Path(build.__file__).resolve().parents[2]
NEEDS_COMPILER = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler here")


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """What was loaded before a test is no answer in it, and what it loads is none after it."""
    build._load.cache_clear()
    yield
    build._load.cache_clear()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DYNACONV_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@NEEDS_COMPILER
def test_is_compiled_once(folder: Path) -> None:
    assert build.why_not() is None
    (made,) = folder.iterdir()
    age = made.stat().st_mtime_ns
    build._load.cache_clear()
    assert build.library()
    assert [(path, path.stat().st_mtime_ns) for path in folder.iterdir()] == [(made, age)]


@NEEDS_COMPILER
def test_processes_that_start_together_do_not_disturb_each_other(folder: Path) -> None:
    code = "from dynaconv.kernels.cpu import build; assert build.why_not() is None, build.why_not()"
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    started = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(2)]
    assert [process.wait(100) for process in started] == [0, 0]
    assert len(list(folder.iterdir())) == 1


def test_can_be_switched_off(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(build.SWITCH, "0")
    assert build.why_not() == "DYNACONV_NATIVE is 0"
    with pytest.raises(RuntimeError, match="DYNACONV_NATIVE is 0"):
        build.library()
    assert not folder.exists()


def test_no_compiler(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    assert build.why_not() == "there is no C compiler (no-such-compiler) on the path"


def test_a_compiler_that_fails(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho no such target >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    assert "no such target" in str(build.why_not())
    assert list(folder.iterdir()) == []  # nothing half made


@NEEDS_COMPILER
def test_a_cache_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DYNACONV_CACHE", str(tmp_path / "file"))
    assert "compiling the kernels failed" in str(build.why_not())


@NEEDS_COMPILER
def test_a_library_that_is_damaged_is_made_anew(folder: Path) -> None:
    assert build.why_not() is None
    (made,) = folder.iterdir()
    build._load.cache_clear()
    made.unlink()  # the loaded one stays mapped: writing into it would take this process down
    made.write_bytes(b"half a library")
    code = "from dynaconv.kernels.cpu import build; assert build.why_not() is None, build.why_not()"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(SOURCE)}, check=True)


def test_folder_is_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DYNACONV_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert build.cache_folder() == Path("/somewhere/dynaconv")
