"""Compile the C files of this folder once per machine, keep the library in a cache folder, and load it.

A wheel for one platform brings compiled libraries (`built`); the one that fits this processor is loaded, and nothing
is compiled.

The library is kept as ``kernels/<fingerprint>-<checksum>.so`` in the cache folder. The fingerprint is a hash of the
sources, the compiler, its flags and the processor; the checksum is that of the file. The library is loaded only if

- the folder and the file belong to this user or to root, and no other user may write to them: the code of a library
  that another user has put there would run with this user's rights;
- the checksum is right: loading a truncated library can crash the process.
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

from dynaconv.kernels.cpu import built
from dynaconv.kernels.cpu.arguments import declare
from dynaconv.torch_private import constant_for_compiler

SWITCH = "DYNACONV_NATIVE"  # set to 0: never compile, never load

_SOURCES = built.sources()
_FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=fast", "-fPIC", "-fvisibility=hidden")
# Target processor and OpenMP. Tried in this order until one works, because not every compiler supports all of them.
_TARGETS = (("-march=native",), ("-mcpu=native",), ())
_THREADS = (("-fopenmp",), ())
_WRITABLE_BY_OTHERS = 0o022

_flags: tuple[str, ...] | None = None  # those of `compiled_with`


def cache_folder() -> Path:
    """The folder for measurements and compiled kernels of this machine.

    ``$DYNACONV_CACHE``, or else ``dynaconv`` in the user's cache folder (``$XDG_CACHE_HOME``, ``~/.cache``).

    Raises:
        OSError: neither variable is set, and the user has no home folder.
    """
    chosen = os.environ.get("DYNACONV_CACHE")
    if chosen:
        return Path(chosen)
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
    """The compiled kernels; RuntimeError with the reason if they are not available."""
    found = _load(_flags)
    if isinstance(found, str):
        raise RuntimeError(found)
    return found


@constant_for_compiler
def instruction_set() -> str:
    """The instruction set of the library: ``"avx512"``, ``"avx2"`` (with FMA), ``"neon"`` or ``"baseline"``."""
    name: bytes = library().dynaconv_instruction_set()
    return name.decode()


@contextlib.contextmanager
def compiled_with(*flags: str) -> Iterator[ctypes.CDLL]:
    """For tests and measurements: inside the context all calls use a library that was compiled with ``flags``.

    The flags replace ``-march=native``: ``-march=haswell`` for AVX2, ``-march=x86-64`` for the baseline.
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
    brought = built.find() if flags is None else None
    complaint = ""
    if brought is not None:
        try:
            built.share_openmp()
            return declare(ctypes.CDLL(str(brought)))
        except (OSError, AttributeError) as error:
            complaint = f", and the library of the wheel does not load: {error}"
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        return f"there is no C compiler ({os.environ.get('CC', 'cc')}) on the path{complaint}"
    try:
        fingerprint = _fingerprint(compiler, flags)
        with _folder() as folder:
            distrust = _why_not_trusted(folder)
            if distrust is not None:
                return distrust
            for path in sorted(folder.glob(f"{fingerprint}-*.so")):
                if not path.is_file():
                    path.unlink()  # a pipe would be waited for
                    continue
                distrust = _why_not_trusted(path)
                if distrust is not None:
                    return distrust
                if path.stem == f"{fingerprint}-{_checksum(path)}":
                    with contextlib.suppress(OSError, AttributeError):  # not a library of this project
                        return declare(ctypes.CDLL(str(path)))
                path.unlink()  # damaged or of another version: it is compiled again
            return declare(ctypes.CDLL(str(_compile(compiler, flags, folder, fingerprint))))
    except (OSError, RuntimeError, AttributeError, subprocess.SubprocessError) as error:
        return f"compiling the kernels failed: {error}"


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """The folder of compiled kernels; if it cannot be written, a temporary folder of this process."""
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
        with tempfile.TemporaryDirectory() as private:  # once the library is loaded, its file may be removed
            yield Path(private)
    else:
        yield folder


def _why_not_trusted(path: Path) -> str | None:
    """Why a file or folder is not trusted (another user could have written it), or None."""
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
    """Hash of sources, compiler, flags and processor: machines of several kinds may share one home folder."""
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
    """Compile under a temporary name, then rename: another process may be doing the same."""
    complaint = ""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        made = Path(temporary) / "kernels.so"
        for target in _TARGETS if flags is None else (flags,):
            for threads in _THREADS:
                complaint = _build(compiler, (*_FLAGS, *target, *threads), made, made.parent)
                if complaint:
                    continue
                made.chmod(0o700)
                with made.open("rb") as file:
                    os.fsync(file.fileno())
                path = folder / f"{fingerprint}-{_checksum(made)}.so"
                os.replace(made, path)
                return path
    raise RuntimeError(f"{compiler} says {complaint[-500:]!r}")


def compile_library(compiler: str, flags: tuple[str, ...], made: Path, *, link_openmp: bool = True) -> None:
    """Compile the C files with ``flags`` besides our own into the library ``made``.

    Args:
        link_openmp: False leaves the functions of OpenMP to the library that torch has loaded, under whatever name.

    Raises:
        RuntimeError: with what the compiler says.
    """
    with tempfile.TemporaryDirectory() as objects:
        complaint = _build(compiler, (*_FLAGS, *flags), made, Path(objects), link_openmp=link_openmp)
    if complaint:
        raise RuntimeError(f"{compiler} says {complaint[-500:]!r}")


def _build(compiler: str, flags: tuple[str, ...], made: Path, folder: Path, *, link_openmp: bool = True) -> str:
    """Compile all files in parallel and link them; return the compiler's error output, empty if it succeeded."""
    sources = [source for source in _SOURCES if source.suffix == ".c"]
    objects = [str(folder / f"{source.stem}.o") for source in sources]
    commands = [[compiler, *flags, "-c", "-o", out, str(source)] for source, out in zip(sources, objects, strict=True)]
    with ThreadPoolExecutor() as pool:
        complaints = "".join(pool.map(_run, commands))
    linked = flags if link_openmp else tuple(flag for flag in flags if flag != "-fopenmp")
    return complaints or _run([compiler, *linked, "-shared", "-o", str(made), *objects, "-lm"])


def _run(command: list[str]) -> str:
    made = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    return "" if made.returncode == 0 else made.stderr.strip() or f"exit status {made.returncode}"
