"""Build the wheels into dist/: for any platform, and for Linux on x86-64 and aarch64 with the kernels compiled.

    make wheels                                  # all three
    python tools/build_wheels.py any x86_64      # some

The wheel for any platform compiles the kernels at first use, if there is a compiler. The other two bring them
(`dynaconv.kernels.cpu.built`): AVX2 and AVX-512, or NEON. They need glibc 2.28, as torch does, and use the OpenMP
library that torch has loaded. aarch64 is compiled by ``aarch64-linux-gnu-gcc`` (Debian: gcc-aarch64-linux-gnu).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from dynaconv.kernels.cpu import build, built  # noqa: E402

COMPILERS = {"x86_64": "x86_64-linux-gnu-gcc", "aarch64": "aarch64-linux-gnu-gcc"}
GLIBC = (2, 28)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", nargs="*", metavar="any|x86_64|aarch64", help="default: all three")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder of the wheels (default: dist)")
    arguments = parser.parse_args()
    wanted = arguments.wheels or ["any", *COMPILERS]
    unknown = set(wanted) - {"any", *COMPILERS}
    if unknown:
        parser.error(f"unknown wheels: {', '.join(sorted(unknown))}; known are any, {', '.join(COMPILERS)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory() as temporary:
            pure = build_pure(Path(temporary))
            for name in wanted:
                made = pure if name == "any" else with_kernels(pure, name, Path(temporary) / name)
                print(shutil.copy(made, arguments.out))
    except (subprocess.CalledProcessError, OSError, RuntimeError) as error:
        print(f"the wheels were not all built: {error}", file=sys.stderr)
        return 1
    return 0


def build_pure(folder: Path) -> Path:
    """The wheel for any platform, from a copy of the tree: setuptools would leave build folders in it."""
    copy = folder / "tree"
    shutil.copytree(ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "built"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(folder / "pure"), str(copy)], check=True)
    (wheel,) = (folder / "pure").glob("*.whl")
    return wheel


def with_kernels(pure: Path, machine: str, folder: Path) -> Path:
    """The same wheel with the libraries of ``machine`` in it, under the tag of manylinux."""
    subprocess.run([sys.executable, "-m", "wheel", "unpack", "--dest", str(folder), str(pure)], check=True, stdout=-3)
    (tree,) = (path for path in folder.iterdir() if path.is_dir())
    compile_into(tree / "dynaconv/kernels/cpu/built", machine)
    tag = f"py3-none-manylinux_{GLIBC[0]}_{GLIBC[1]}_{machine}"
    facts = next(tree.glob("*.dist-info/WHEEL"))
    text = facts.read_text().replace("Tag: py3-none-any", f"Tag: {tag}")
    facts.write_text(text.replace("Root-Is-Purelib: true", "Root-Is-Purelib: false"))
    subprocess.run([sys.executable, "-m", "wheel", "pack", "--dest-dir", str(folder), str(tree)], check=True, stdout=-3)
    (wheel,) = folder.glob("*.whl")
    return wheel


def compile_into(folder: Path, machine: str) -> None:
    """Compile every library of ``machine`` into ``folder``, with the list of them that `built.find` reads."""
    compiler = shutil.which(COMPILERS[machine])
    if compiler is None:
        raise RuntimeError(
            f"there is no {COMPILERS[machine]} on the path; Debian has it in gcc-{machine.replace('_', '-')}-linux-gnu"
        )
    folder.mkdir(parents=True)
    checksums = {}
    for name, (flags, _) in built.TARGETS.items():
        if name.startswith(f"{machine}-"):
            library = folder / f"{name}.so"
            build.compile_library(compiler, (*flags, "-fopenmp"), library, link_openmp=False)
            refuse_new_symbols(library)
            checksums[name] = hashlib.sha256(library.read_bytes()).hexdigest()
    written = {"sources": built.checksum_of_sources(), "libraries": checksums}
    (folder / "built.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


def refuse_new_symbols(library: Path) -> None:
    """RuntimeError if the library needs a function of a glibc newer than the wheel's tag says."""
    shown = subprocess.run(
        ["readelf", "--wide", "--dyn-syms", str(library)], check=True, capture_output=True, text=True
    )
    versions = {tuple(map(int, found.split("."))) for found in re.findall(r"@GLIBC_([0-9.]+)", shown.stdout)}
    if max(versions, default=(0,))[:2] > GLIBC:
        raise RuntimeError(f"{library.name} needs glibc {max(versions)}, the tag says {GLIBC}")


if __name__ == "__main__":
    sys.exit(main())
