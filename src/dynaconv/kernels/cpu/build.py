"""Compile the C files of this folder once per machine, keep the library in a cache folder, and load it."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dynaconv.kernels.cpu.signatures import declare

SWITCH = "DYNACONV_NATIVE"  # set to 0: never compile, never load

_SOURCES = sorted(Path(__file__).parent.glob("*.[ch]"))
_FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=fast", "-fPIC")
# What makes it faster and is not known to every compiler: tried from the left until one works.
_BETTER = (("-march=native", "-fopenmp"), ("-mcpu=native", "-fopenmp"), ("-fopenmp",), ())


def cache_folder() -> Path:
    """Where things measured or compiled on this machine are kept: ``$DYNACONV_CACHE``, or ``dynaconv`` in the user's
    cache folder (``$XDG_CACHE_HOME``, ``~/.cache``)."""
    own = os.environ.get("DYNACONV_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dynaconv"


def why_not() -> str | None:
    """Why the kernels cannot be used here, or None. The first call compiles them (a few seconds)."""
    found = _load()
    return found if isinstance(found, str) else None


def library() -> ctypes.CDLL:
    """The compiled kernels; RuntimeError, with the reason, where there are none."""
    found = _load()
    if isinstance(found, str):
        raise RuntimeError(found)
    return found


@functools.lru_cache(maxsize=1)
def _load() -> ctypes.CDLL | str:
    if os.environ.get(SWITCH, "1") == "0":
        return f"{SWITCH} is 0"
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        return f"there is no C compiler ({os.environ.get('CC', 'cc')}) on the path"
    try:
        path = cache_folder() / f"native-{_fingerprint(compiler)}.so"
        if path.exists():
            with contextlib.suppress(OSError):  # damaged: it is made anew
                return declare(ctypes.CDLL(str(path)))
        _compile(compiler, path)
        return declare(ctypes.CDLL(str(path)))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        return f"compiling the kernels failed: {error}"


def _fingerprint(compiler: str) -> str:
    """Of the sources, the compiler and the processor: a home folder may be shared by machines of several kinds."""
    parts = [path.read_bytes() for path in _SOURCES]
    parts += [compiler.encode(), repr((_FLAGS, _BETTER)).encode(), platform.platform().encode(), _processor().encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    kinds = ("flags", "Features", "model name", "CPU part")
    return "\n".join(sorted({line for line in lines if line.partition(":")[0].strip() in kinds}))


def _compile(compiler: str, path: Path) -> None:
    """Write the library under a temporary name first: another process may be doing the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made, said = Path(folder) / path.name, ""
        for better in _BETTER:
            said = _build(compiler, (*_FLAGS, *better), made)
            if not said:
                os.replace(made, path)
                return
        raise RuntimeError(f"{compiler} answered {said[-500:]!r}")


def _build(compiler: str, flags: tuple[str, ...], made: Path) -> str:
    """Compile every file, at the same time, and link them; answer what the compiler complained of, if it failed."""
    sources = [source for source in _SOURCES if source.suffix == ".c"]
    objects = [str(made.with_name(f"{source.stem}.o")) for source in sources]
    commands = [[compiler, *flags, "-c", "-o", out, str(source)] for source, out in zip(sources, objects, strict=True)]
    with ThreadPoolExecutor() as pool:
        said = "".join(pool.map(_run, commands))
    return said or _run([compiler, *flags, "-shared", "-o", str(made), *objects, "-lm"])


def _run(command: list[str]) -> str:
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return "" if answer.returncode == 0 else answer.stderr.strip() or f"exit status {answer.returncode}"
