"""Compile the C files of this folder once per machine, keep the library in a cache folder, and load it.

The library is kept as ``kernels/<fingerprint>-<checksum>.so`` in the cache folder. The fingerprint is of all that it is
made from; the checksum is of the file. It is loaded only where folder and file belong to this user or to root, nobody
else may write there, and the checksum is right: a library that was cut short would end the process, and one that
somebody else has put there would run as this user.
"""

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
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dynaconv.kernels.cpu.arguments import declare
from dynaconv.torch_private import constant_for_compiler

SWITCH = "DYNACONV_NATIVE"  # set to 0: never compile, never load

_SOURCES = sorted(Path(__file__).parent.glob("*.[ch]"))
_FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=fast", "-fPIC", "-fvisibility=hidden")
# For which processor: tried from the left until one works, for not every compiler knows them, or OpenMP.
_TARGETS = (("-march=native",), ("-mcpu=native",), ())
_THREADS = (("-fopenmp",), ())
_WRITABLE_BY_OTHERS = 0o022

_flags: tuple[str, ...] | None = None  # those of `compiled_with`


def cache_folder() -> Path:
    """Where things measured or compiled on this machine are kept: ``$DYNACONV_CACHE``, or ``dynaconv`` in the user's
    cache folder (``$XDG_CACHE_HOME``, ``~/.cache``). OSError where the user has no home folder either."""
    own = os.environ.get("DYNACONV_CACHE")
    if own:
        return Path(own)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dynaconv"
    except RuntimeError as error:
        raise OSError(f"{error}; set DYNACONV_CACHE to a folder") from None


@constant_for_compiler
def why_not() -> str | None:
    """Why the kernels cannot be used here, or None. The first call compiles them (a few seconds)."""
    found = _load(_flags)
    return found if isinstance(found, str) else None


def library() -> ctypes.CDLL:
    """The compiled kernels; RuntimeError, with the reason, where there are none."""
    found = _load(_flags)
    if isinstance(found, str):
        raise RuntimeError(found)
    return found


@constant_for_compiler
def instruction_set() -> str:
    """What the library was compiled for: ``"avx512"``, ``"avx2"`` (with FMA), ``"neon"``, or ``"baseline"``."""
    name: bytes = library().dynaconv_instruction_set()
    return name.decode()


@contextlib.contextmanager
def compiled_with(*flags: str) -> Iterator[ctypes.CDLL]:
    """For tests and measurements: all calls of this process run by a library that was compiled with ``flags``.

    They take the place of ``-march=native``: ``-march=haswell`` for AVX2, ``-march=x86-64`` for the baseline.
    """
    global _flags
    before, _flags = _flags, flags
    try:
        yield library()
    finally:
        _flags = before


@functools.lru_cache(maxsize=16)
def _load(flags: tuple[str, ...] | None) -> ctypes.CDLL | str:
    if os.environ.get(SWITCH, "1") == "0":
        return f"{SWITCH} is 0"
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        return f"there is no C compiler ({os.environ.get('CC', 'cc')}) on the path"
    try:
        fingerprint = _fingerprint(compiler, flags)
        with _folder() as folder:
            distrust = _distrust(folder)
            if distrust is not None:
                return distrust
            for path in sorted(folder.glob(f"{fingerprint}-*.so")):
                distrust = _distrust(path)
                if distrust is not None:
                    return distrust
                if path.stem == f"{fingerprint}-{_checksum(path)}":
                    with contextlib.suppress(OSError, AttributeError):  # not ours, whatever its checksum
                        return declare(ctypes.CDLL(str(path)))
                path.unlink()  # it is made anew
            return declare(ctypes.CDLL(str(_compile(compiler, flags, folder, fingerprint))))
    except (OSError, RuntimeError, AttributeError, subprocess.SubprocessError) as error:
        return f"compiling the kernels failed: {error}"


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """The folder of compiled kernels; where it cannot be written, one that is there for this process alone."""
    try:
        folder = cache_folder() / "kernels"
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK) and not any(folder.glob("*.so")):
            raise PermissionError(f"{folder} cannot be written")
    except OSError as error:
        warnings.warn(
            "the kernels in C are compiled for this process alone, which takes seconds, for they cannot be kept: "
            f"{error}. Set DYNACONV_CACHE to a folder that can be written",
            RuntimeWarning,
            stacklevel=2,
        )
        with tempfile.TemporaryDirectory() as private:  # a library that is loaded needs its file no more
            yield Path(private)
    else:
        yield folder


def _distrust(path: Path) -> str | None:
    """Why what lies at ``path`` is not loaded: somebody else could have written it."""
    if not hasattr(os, "geteuid"):
        return None
    facts = path.stat()
    if facts.st_uid not in (os.geteuid(), 0):
        return f"{path} belongs to user {facts.st_uid}, not to {os.geteuid()}: remove it, or set DYNACONV_CACHE"
    if facts.st_mode & _WRITABLE_BY_OTHERS:
        mode = oct(facts.st_mode & 0o777)[2:]
        return f"{path} can be written by others (mode {mode}): remove it, or set DYNACONV_CACHE to another folder"
    return None


def _fingerprint(compiler: str, flags: tuple[str, ...] | None) -> str:
    """Of sources, compiler, flags and processor: a home folder may be shared by machines of several kinds."""
    parts = [path.read_bytes() for path in _SOURCES]
    parts += [compiler.encode(), _version(compiler).encode(), repr((_FLAGS, _TARGETS, _THREADS, flags)).encode()]
    parts += [platform.platform().encode(), _processor().encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _version(compiler: str) -> str:
    made = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=60, check=False)
    return made.stdout


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    kinds = ("flags", "Features", "model name", "CPU part")
    return "\n".join(sorted({line for line in lines if line.partition(":")[0].strip() in kinds}))


def _compile(compiler: str, flags: tuple[str, ...] | None, folder: Path, fingerprint: str) -> Path:
    """Write the library under a temporary name first: another process may be doing the same."""
    complaint = ""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        made = Path(temporary) / "kernels.so"
        for target in _TARGETS if flags is None else (flags,):
            for threads in _THREADS:
                complaint = _build(compiler, (*_FLAGS, *target, *threads), made)
                if complaint:
                    continue
                made.chmod(0o700)
                with made.open("rb") as file:
                    os.fsync(file.fileno())
                path = folder / f"{fingerprint}-{_checksum(made)}.so"
                os.replace(made, path)
                return path
    raise RuntimeError(f"{compiler} says {complaint[-500:]!r}")


def _build(compiler: str, flags: tuple[str, ...], made: Path) -> str:
    """Compile every file, at the same time, and link them; return what the compiler complained of, if it failed."""
    sources = [source for source in _SOURCES if source.suffix == ".c"]
    objects = [str(made.with_name(f"{source.stem}.o")) for source in sources]
    commands = [[compiler, *flags, "-c", "-o", out, str(source)] for source, out in zip(sources, objects, strict=True)]
    with ThreadPoolExecutor() as pool:
        complaints = "".join(pool.map(_run, commands))
    return complaints or _run([compiler, *flags, "-shared", "-o", str(made), *objects, "-lm"])


def _run(command: list[str]) -> str:
    made = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    return "" if made.returncode == 0 else made.stderr.strip() or f"exit status {made.returncode}"
