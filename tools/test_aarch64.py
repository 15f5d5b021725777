"""Run the kernels' own checks with the wheel for aarch64, on an x86-64 machine, under qemu.

    python tools/test_aarch64.py [--folder .aarch64]        # Debian or Ubuntu; about ten minutes, 700 MB

Python for arm64 comes from Debian's packages, torch for aarch64 from the index that pip uses; both are unpacked into
the folder and nothing is installed. torch 2.10 is the last one whose wheel for aarch64 runs without CUDA's packages.
The folder is kept for the next time. This shows that the kernels compute the same; their speed under qemu says nothing.

Needs: qemu-user, gcc-aarch64-linux-gnu, and arm64 as a foreign architecture of apt (``dpkg --add-architecture arm64``).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TORCH = "torch==2.10.0"
PURE = ("numpy", "typing_extensions", "sympy", "mpmath", "filelock", "jinja2", "MarkupSafe", "networkx", "fsspec")
DEBIAN = [
    "libc6",
    "libpython3.11-stdlib",
    "libpython3.11-minimal",
    "python3.11-minimal",
    "python3.11",
    "libexpat1",
    "zlib1g",
    "libssl3",
    "libffi8",
    "libbz2-1.0",
    "liblzma5",
    "libsqlite3-0",
    "libuuid1",
    "libgcc-s1",
    "libstdc++6",
    "libgomp1",
    "libcrypt1",
]
CHECKS = """
from dynaconv.kernels import cpu
assert cpu.why_not() is None, cpu.why_not()
import kernel_checks
kernel_checks.run()
print("equal", cpu.instruction_set())
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / ".aarch64", help="kept for the next time")
    folder = parser.parse_args().folder.resolve()
    missing = [name for name in ("qemu-aarch64", "aarch64-linux-gnu-gcc", "apt-get", "dpkg") if not shutil.which(name)]
    if missing:
        print(f"not here: {', '.join(missing)}; see {Path(__file__).name} --help", file=sys.stderr)
        return 2
    try:
        root, site = python_for_arm64(folder), packages_for_aarch64(folder)
        wheel_of_this_tree(folder, site)
    except subprocess.CalledProcessError as error:
        print(f"this failed: {' '.join(map(str, error.cmd))}", file=sys.stderr)
        return 1
    environment = {
        "PATH": "",  # no compiler
        "HOME": str(folder),
        "OMP_NUM_THREADS": "2",
        "PYTHONPATH": os.pathsep.join(map(str, (site, ROOT / "tests/kernels/cpu", ROOT / "tests"))),
    }
    command = [shutil.which("qemu-aarch64"), "-L", root, root / "usr/bin/python3.11", "-c", CHECKS]
    return subprocess.run(command, env=environment, check=False).returncode


def python_for_arm64(folder: Path) -> Path:
    root, debs = folder / "root", folder / "debs"
    if not (root / "usr/bin/python3.11").exists():
        debs.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "-q", *(f"{name}:arm64" for name in DEBIAN)], cwd=debs, check=True)
        for package in debs.glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, root], check=True)
    return root


def packages_for_aarch64(folder: Path) -> Path:
    site, wheels = folder / "site", folder / "wheels"
    if not (site / "torch").exists():
        platform = ["--platform", "manylinux_2_28_aarch64", "--only-binary", ":all:", "--python-version", "311"]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *platform, "--dest", wheels]
        subprocess.run([*command, TORCH, *PURE], check=True)
        for wheel in wheels.glob("*.whl"):
            shutil.unpack_archive(wheel, site, "zip")
    return site


def wheel_of_this_tree(folder: Path, site: Path) -> None:
    """Build the wheel for aarch64 and unpack it beside torch."""
    made = folder / "dist"
    shutil.rmtree(made, ignore_errors=True)
    subprocess.run([sys.executable, ROOT / "tools/build_wheels.py", "aarch64", "--out", made], check=True)
    shutil.rmtree(site / "dynaconv", ignore_errors=True)
    (wheel,) = made.glob("*.whl")
    shutil.unpack_archive(wheel, site, "zip")


if __name__ == "__main__":
    sys.exit(main())
