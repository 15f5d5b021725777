"""Run the core's tests on another torch, in an environment of its own: `make test-torch TORCH=2.11.0`.

The environment is .venv-torch-<version>; it is made once (torch brings gigabytes) and used again. Every other package
has the version of requirements.txt, but for those that belong to one torch (torchvision, triton, the CUDA libraries).
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
ROOMS = ("ops", "routing", "layers", "kernels", "conversion", "inference", "counting", "laws", "test_torch_private.py")
OF_TORCH = re.compile(r"(torch|torchvision|triton|nvidia|cuda|setuptools)\b")


def main(words: list[str] | None = None) -> int:
    """Return the exit code of pytest, or of the step that failed."""
    options, more = _options(words)
    folder = REPOSITORY / f".venv-torch-{options.torch}"
    python = folder / "bin" / "python"
    stamp = folder / "installed"
    try:
        if not stamp.exists():
            make(folder, python, options.torch)
            stamp.write_text(options.torch + "\n", encoding="utf-8")
    except subprocess.CalledProcessError as error:
        print(f"making {folder.name} failed (exit code {error.returncode}); the reason is above", file=sys.stderr)
        return 1
    rooms = [f"tests/{room}" for room in options.rooms or ROOMS]
    # The project itself is not installed: its sources are on the path.
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    command = [str(python), "-m", "pytest", "-n", options.workers, "-m", "not slow", *rooms, *more]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, check=False).returncode


def _options(words: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("torch", help="a version, such as 2.11.0; or 'newest'")
    parser.add_argument("--rooms", nargs="+", metavar="ROOM", help=f"folders of tests/; default: {' '.join(ROOMS)}")
    parser.add_argument("--workers", default="2", help="test processes")
    options, more = parser.parse_known_args(words)
    if not re.fullmatch(r"newest|\d+\.\d+(\.\d+)?([.+\w]*)?", options.torch):
        parser.error(f"TORCH is {options.torch!r}; expected a version such as 2.11.0, or 'newest'")
    return options, more


def make(folder: Path, python: Path, torch: str) -> None:
    """Make the environment: torch with what belongs to it, then every other pin."""
    print(f"making {folder.name} with Python {sys.version.split()[0]} (torch brings gigabytes)", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    wanted = "torch" if torch == "newest" else f"torch=={torch}"
    install(python, wanted, "torchvision")
    pins = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8").splitlines()
    others = folder / "others.txt"
    others.write_text("\n".join(pin for pin in pins if not OF_TORCH.match(pin)) + "\n", encoding="utf-8")
    install(python, "--no-deps", "--requirement", str(others))


def install(python: Path, *words: str) -> None:
    """``pip install`` into that environment."""
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *words]
    subprocess.run(command, cwd=REPOSITORY, check=True)


if __name__ == "__main__":
    sys.exit(main())
