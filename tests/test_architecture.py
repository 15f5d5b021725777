"""Who may import whom: the contracts of pyproject.toml hold, and they are the ones of docs/architecture.md."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from importlinter import api

REPOSITORY = Path(__file__).resolve().parents[1]
OPTIONS = ["--no-cache", "--no-logo"]


def layers_of_contract() -> list[str]:
    (contract,) = [
        options
        for options in api.read_configuration(str(REPOSITORY / "pyproject.toml"))["contracts_options"]
        if options["type"] == "layers"
    ]
    return [re.sub(r"[()]", "", layer) for layer in contract["layers"]]


def test_import_contracts_hold() -> None:
    environment = dict(os.environ, PYTHONPATH=str(REPOSITORY / "src"))
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command; lint_imports_command()",
            "--no-cache",
        ],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Contracts: \d+ kept, 0 broken", done.stdout), done.stdout


def test_contract_is_the_documented_one() -> None:
    text = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    picture = re.search(r"Who may import whom.*?\n\n((?:    .+\n)+)", text)
    assert picture is not None
    documented = [line.strip() for line in picture.group(1).splitlines()]
    files = ("__main__", "public", "hub", "errors")
    rooms = [layer for layer in layers_of_contract() if not layer.startswith(files)]
    assert rooms == documented
