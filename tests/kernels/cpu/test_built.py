"""Libraries that a wheel brings: the right one for the processor is loaded, a damaged one never is."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dynaconv.kernels.cpu import build, built

REPOSITORY = Path(__file__).resolve().parents[3]
CONTENT = {"x86_64-avx512": b"512", "x86_64-avx2": b"2"}
AVX2 = frozenset(["avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "sse4_2"])
AVX512 = AVX2 | frozenset(["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A wheel's folder with two libraries (not real ones)."""
    for name, content in CONTENT.items():
        (tmp_path / f"{name}.so").write_bytes(content)
    checksums = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}
    written = {"sources": built.checksum_of_sources(), "libraries": checksums}
    (tmp_path / "built.json").write_text(json.dumps(written), encoding="utf-8")
    monkeypatch.setattr(built, "FOLDER", tmp_path)
    build._load.cache_clear()
    yield tmp_path
    build._load.cache_clear()


@pytest.mark.parametrize(
    ("machine", "flags", "name"),
    [
        ("x86_64", AVX512, "x86_64-avx512.so"),
        ("x86_64", AVX2, "x86_64-avx2.so"),
        ("x86_64", AVX512 - {"avx512vl"}, "x86_64-avx2.so"),
        ("x86_64", AVX2 - {"fma"}, None),
        ("x86_64", frozenset(), None),
        ("aarch64", AVX512, None),
    ],
)
def test_the_best_library_that_the_processor_can_run(
    folder: Path, machine: str, flags: frozenset[str], name: str | None
) -> None:
    assert built.find(machine, flags) == (None if name is None else folder / name)


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "damage",
    ["library", "no library", "sources", "list", "no list", "list of another form", "pipe as library", "pipe as list"],
)
def test_what_is_damaged_is_not_loaded(folder: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if damage == "library":
        (folder / "x86_64-avx512.so").write_bytes(b"51")
    elif damage == "no library":
        (folder / "x86_64-avx512.so").unlink()
    elif damage == "sources":
        monkeypatch.setattr(built, "checksum_of_sources", lambda: "of other files")
    elif damage == "list":
        (folder / "built.json").write_text('{"sources"', encoding="utf-8")
    elif damage == "no list":
        (folder / "built.json").unlink()
    elif damage.startswith("pipe"):
        place = folder / ("built.json" if damage == "pipe as list" else "x86_64-avx512.so")
        place.unlink()
        os.mkfifo(place)  # it would be waited for
    else:
        (folder / "built.json").write_text("[1]", encoding="utf-8")
    assert built.find("x86_64", AVX512) is None


def test_a_library_that_does_not_load_is_compiled_instead(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(built, "find", lambda: folder / "x86_64-avx2.so")
    monkeypatch.setenv("PATH", "")
    assert "no C compiler" in str(build.why_not())
    assert "the library of the wheel does not load" in str(build.why_not())


def test_a_clone_has_none() -> None:
    assert not (Path(build.__file__).parent / "built").exists()
    assert built.find() is None


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the wheel that is tried is for x86-64")
def test_the_wheel_is_fast_without_a_compiler(tmp_path: Path) -> None:
    """Built by the command, unpacked beside torch; without a compiler the kernels' own checks run with it."""
    if shutil.which("x86_64-linux-gnu-gcc") is None:
        pytest.skip("there is no x86_64-linux-gnu-gcc here")
    command = [sys.executable, str(REPOSITORY / "tools/build_wheels.py"), "x86_64", "--out", str(tmp_path)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    (wheel,) = tmp_path.glob("*-manylinux_2_28_x86_64.whl")
    shutil.unpack_archive(wheel, tmp_path / "site", "zip")
    script = (
        "import dynaconv.kernels.cpu as cpu, kernel_checks, sys\n"
        f"assert cpu.__file__.startswith({str(tmp_path)!r})\n"
        "assert cpu.why_not() is None, cpu.why_not()\n"
        "kernel_checks.run()\n"
        "print(cpu.instruction_set())\n"
    )
    paths = [tmp_path / "site", Path(__file__).parent, REPOSITORY / "tests"]
    environment = {
        **os.environ,
        "PATH": "",
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "DYNACONV_CACHE": str(tmp_path / "cache"),
    }
    ran = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert ran.stdout.strip() in ("avx512", "avx2")
    assert not (tmp_path / "cache").exists()


def test_the_openmp_library_is_found_in_any_folder() -> None:
    """A path of ``/proc/self/maps`` may have spaces, and stands there once for every part of the library."""
    library = "/opt/a user/venv/lib/python3.12/site-packages/torch/lib/libgomp-24e2ab19.so.1"
    mapped = (
        "55d0c0000000-55d0c0001000 r--p 00000000 fe:01 11  /usr/bin/python3.12\n"
        f"7f10c0000000-7f10c0001000 r--p 00000000 fe:01 12                  {library}\n"
        f"7f10c0001000-7f10c0002000 r-xp 00001000 fe:01 12                  {library}\n"
        "7f10c0003000-7f10c0004000 rw-p 00000000 00:00 0\n"
        "7f10c0004000-7f10c0005000 rw-p 00000000 00:00 0                   [heap]\n"
    )
    assert built.openmp_in(mapped) == [library]
