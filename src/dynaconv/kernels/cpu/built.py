"""Kernels that were compiled before: the libraries inside a wheel for one platform, so that no compiler is needed.

``make wheels`` puts them into ``built/`` beside this file, with ``built.json``: the checksum of the C files that they
were compiled from and the checksum of every library. A clone and the wheel for any platform have no such folder; there
the kernels are compiled at first use (`build`).
"""

from __future__ import annotations

import ctypes
import hashlib
import platform
import re
from pathlib import Path

from dynaconv.files import read_json, read_plain

FOLDER = Path(__file__).parent / "built"

# Best first: what the compiler is told, and the flags that a processor must have in /proc/cpuinfo. The two levels of
# x86-64 are those of its ABI document; of their flags the newest stand for all.
TARGETS: dict[str, tuple[tuple[str, ...], frozenset[str]]] = {
    "x86_64-avx512": (("-march=x86-64-v4",), frozenset(["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"])),
    "x86_64-avx2": (("-march=x86-64-v3",), frozenset(["avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"])),
    "aarch64-neon": (("-march=armv8-a",), frozenset()),  # every processor of this architecture has NEON
}


def sources() -> list[Path]:
    """The C files of the kernels, in a fixed order."""
    return sorted(Path(__file__).parent.glob("*.[ch]"))


def checksum_of_sources() -> str:
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in sources())).hexdigest()


def find(machine: str | None = None, flags: frozenset[str] | None = None) -> Path | None:
    """The best library of this wheel for this processor, or None.

    None too if the library is damaged or belongs to other C files: then the kernels are compiled, as in a clone.

    Args:
        machine: the architecture, by default this machine's (``platform.machine()``).
        flags: what the processor can do, by default the flags in ``/proc/cpuinfo``.
    """
    if not FOLDER.is_dir():
        return None
    try:
        written = read_json(FOLDER / "built.json")
        if written["sources"] != checksum_of_sources():
            return None
        machine = platform.machine() if machine is None else machine
        flags = processor_flags() if flags is None else flags
        for name, checksum in written["libraries"].items():
            path = FOLDER / f"{name}.so"
            if name.startswith(f"{machine}-") and TARGETS[name][1] <= flags:
                return path if hashlib.sha256(read_plain(path)).hexdigest() == checksum else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # a damaged list of the libraries
    return None


def processor_flags() -> frozenset[str]:
    """What Linux says that the first processor can do; empty where it says nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def share_openmp() -> None:
    """Let the libraries use the OpenMP library that torch has loaded, whose name and place differ from build to build.

    Its functions become visible to every library of the process. Where torch has none, the kernels do not load.
    """
    try:
        mapped = Path("/proc/self/maps").read_text(encoding="utf-8")
    except OSError:
        return
    for path in openmp_in(mapped):
        ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        return


def openmp_in(mapped: str) -> list[str]:
    """The OpenMP libraries in a text of ``/proc/self/maps``, where the path is the rest of a line, spaces included."""
    paths = (line.split(maxsplit=5)[5] for line in mapped.splitlines() if "/" in line)
    return [path for path in dict.fromkeys(paths) if re.match(r"lib(gomp|iomp5|omp)\b", path.rpartition("/")[2])]
