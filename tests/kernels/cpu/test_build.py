"""The kernels are compiled once and kept; whatever goes wrong with that, there is a reason and no exception."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dynaconv.kernels.cpu import build, convolve

SOURCE = Path(build.__file__).resolve().parents[3]
NEEDS_COMPILER = pytest.mark.skipif(
    shutil.which("cc") is None and not os.environ.get("CI"), reason="there is no C compiler here"
)
UNOPTIMIZED = ("-std=gnu11", "-O0", "-fPIC", "-fvisibility=hidden")
LOADS = f"""
from dynaconv.kernels.cpu import build
build._FLAGS, build._TARGETS = {UNOPTIMIZED}, ((),)
assert build.why_not() is None, build.why_not()
"""


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """What was loaded before a test is not loaded in it, nor what it loads after it."""
    build._load.cache_clear()
    yield
    build._load.cache_clear()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DYNACONV_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kernels"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only the handling of files is looked at: no optimization."""
    monkeypatch.setattr(build, "_FLAGS", UNOPTIMIZED)
    monkeypatch.setattr(build, "_TARGETS", ((),))


@NEEDS_COMPILER
@pytest.mark.usefixtures("quick")
def test_is_compiled_once(folder: Path) -> None:
    assert build.why_not() is None
    (made,) = folder.iterdir()
    age = made.stat().st_mtime_ns
    assert (folder.stat().st_mode & 0o777, made.stat().st_mode & 0o777) == (0o700, 0o700)
    spent = []
    for _ in range(7):
        build._load.cache_clear()
        start = time.thread_time()
        assert build.library()
        spent.append(time.thread_time() - start)
    assert [(path, path.stat().st_mtime_ns) for path in folder.iterdir()] == [(made, age)]
    assert statistics.median(spent) < 0.05  # processor time: another process's load does not matter


@NEEDS_COMPILER
def test_processes_that_start_together_do_not_disturb_each_other(folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    started = [subprocess.Popen([sys.executable, "-c", LOADS], env=environment) for _ in range(2)]
    assert [process.wait() for process in started] == [0, 0]
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


def compiler(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_a_compiler_that_fails(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CC", compiler(tmp_path / "broken", "echo no such target >&2\nexit 1"))
    assert "no such target" in str(build.why_not())
    assert list(folder.iterdir()) == []  # nothing half made


@NEEDS_COMPILER
@pytest.mark.usefixtures("quick")
def test_another_version_of_the_compiler_compiles_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for version in ("12", "13"):
        script = f'[ "$1" = --version ] && echo compiler {version} && exit 0\nexec {shutil.which("cc")} "$@"'
        monkeypatch.setenv("CC", compiler(tmp_path / "versioned", script))
        build._load.cache_clear()
        assert build.why_not() is None
    assert len(list(folder.iterdir())) == 2


@NEEDS_COMPILER
@pytest.mark.usefixtures("quick")
def test_where_nothing_can_be_kept_this_process_compiles_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DYNACONV_CACHE", str(tmp_path / "file"))
    with pytest.warns(RuntimeWarning, match="compiled for this process alone.*Set DYNACONV_CACHE"):
        assert build.why_not() is None
    assert torch.equal(
        convolve.unpack_bank(convolve.pack_bank(torch.ones(1, 2, 3, 1)), (1, 2, 3, 1)), torch.ones(1, 2, 3, 1)
    )


@NEEDS_COMPILER
@pytest.mark.usefixtures("quick")
def test_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("DYNACONV_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", staticmethod(homeless))
    with pytest.raises(OSError, match="set DYNACONV_CACHE to a folder"):
        build.cache_folder()
    with pytest.warns(RuntimeWarning, match="Could not determine home directory"):
        assert build.why_not() is None


def damage_half(made: Path) -> None:
    whole = made.read_bytes()
    made.unlink()  # the loaded one stays mapped: writing into it would take this process down
    made.write_bytes(whole[: len(whole) // 2])  # dlopen maps it, and the process ends where it reads beyond the end


def damage_nothing_left(made: Path) -> None:
    made.unlink()
    made.touch(0o700)


def damage_a_bit(made: Path) -> None:
    whole = bytearray(made.read_bytes())
    made.unlink()
    whole[len(whole) // 2] ^= 1
    made.write_bytes(whole)


def damage_foreign(made: Path) -> None:
    """A library of others, with the right checksum in its name."""
    made.unlink()
    source = made.with_suffix(".c")
    source.write_text("int somebody_elses(void) { return 1; }")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(made), str(source)], check=True)
    source.unlink()
    checksum = hashlib.sha256(made.read_bytes()).hexdigest()[:32]
    made.rename(made.with_name(f"{made.name.split('-')[0]}-{checksum}.so"))


@NEEDS_COMPILER
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("damage", [damage_half, damage_nothing_left, damage_a_bit, damage_foreign])
def test_a_library_that_is_damaged_is_made_anew(folder: Path, damage: object) -> None:
    assert build.why_not() is None
    (made,) = folder.iterdir()
    before = made.read_bytes()
    damage(made)  # type: ignore[operator]
    for path in folder.iterdir():
        path.chmod(0o700)
    build._load.cache_clear()
    assert build.why_not() is None
    (again,) = folder.iterdir()
    assert again.read_bytes() == before


@NEEDS_COMPILER
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("which", ["folder", "file"])
def test_what_others_can_write_is_not_loaded(folder: Path, which: str) -> None:
    assert build.why_not() is None
    (made,) = folder.iterdir()
    path = folder if which == "folder" else made
    path.chmod(0o720)
    build._load.cache_clear()
    assert build.why_not() == (
        f"{path} can be written by others (mode 720): remove it, or set DYNACONV_CACHE to another folder"
    )


@NEEDS_COMPILER
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("which", ["folder", "file"])
def test_what_belongs_to_another_user_is_not_loaded(folder: Path, which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert build.why_not() is None
    (made,) = folder.iterdir()
    path = folder if which == "folder" else made
    owner = {folder: os.getuid() + (which == "folder"), made: os.getuid() + (which == "file")}
    real = Path.stat

    class Facts:
        def __init__(self, one: Path) -> None:
            self.st_uid, self.st_mode = owner[one], real(one).st_mode

    monkeypatch.setattr(os, "geteuid", lambda: os.getuid())
    monkeypatch.setattr(Path, "stat", lambda one, **kw: Facts(one) if one in owner else real(one, **kw))
    if os.getuid() == 0:  # then `owner + 1` is 1
        assert owner[path] == 1
    build._load.cache_clear()
    assert f"{path} belongs to user {os.getuid() + 1}, not to {os.getuid()}" in str(build.why_not())


def test_folder_is_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DYNACONV_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert build.cache_folder() == Path("/somewhere/dynaconv")


@NEEDS_COMPILER
def test_functions_of_the_same_name_do_not_take_our_place(folder: Path, tmp_path: Path) -> None:
    """Another library's `mix`, `route` ... are found first by whoever looks a name up among all libraries."""
    names = ("mix", "route", "convolve", "run", "panels", "allocate", "depthwise", "frozen_layer", "activate")
    source = tmp_path / "other.c"
    source.write_text("#include <stdlib.h>\n" + "".join(f"void *{name}(void) {{ abort(); }}\n" for name in names))
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(tmp_path / "other.so"), str(source)], check=True)
    code = f"""
import ctypes
ctypes.CDLL({str(tmp_path / "other.so")!r}, mode=ctypes.RTLD_GLOBAL)
{LOADS}
import torch, dynaconv
from torch import nn
layers = dynaconv.DynamicConv2d(8, 8, 3), dynaconv.DynamicConv2d(8, 8, 3, groups=8)
network, x = nn.Sequential(*layers).eval(), torch.randn(9, 8, 9, 9).to(memory_format=torch.channels_last)
with torch.no_grad():
    expected = network.double()(x.double())
    frozen = dynaconv.freeze(network.float(), examples=x)
    for dense in ("tiled", "experts"):
        for layer, strategy in zip(layers, (dense, "stencil")):
            layer.strategy = strategy
        torch.testing.assert_close(network(x).double(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(frozen(x).double(), expected, rtol=1e-4, atol=1e-5)
"""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


@NEEDS_COMPILER
@pytest.mark.usefixtures("quick", "folder")
def test_every_name_that_others_see_has_our_prefix() -> None:
    assert build.why_not() is None
    command = ["nm", "-D", "--defined-only", build.library()._name]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    names = [line.split()[-1] for line in shown.stdout.splitlines()]
    assert len(names) > 10
    assert not [name for name in names if not name.startswith(("dynaconv_", "_"))]


@NEEDS_COMPILER
@pytest.mark.usefixtures("quick", "folder")
def test_structures_of_another_size_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from dynaconv.kernels.cpu import arguments

    class Bank(ctypes.Structure):
        _fields_ = [*arguments.Bank._fields_, ("more", ctypes.c_int64)]

    monkeypatch.setattr(arguments, "STRUCTURES", (arguments.Convolution, Bank))
    assert "Bank has 24 bytes in C and 32 in Python" in str(build.why_not())
