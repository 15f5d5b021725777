"""Who may import whom: the contract of pyproject.toml is the one of docs/architecture.md.

That the code obeys it is checked by `make lint`, in the same continuous integration.
"""

from __future__ import annotations

import re
from pathlib import Path

from importlinter import api

REPOSITORY = Path(__file__).resolve().parents[1]


def layers_of_contract() -> list[str]:
    (contract,) = [
        options
        for options in api.read_configuration(str(REPOSITORY / "pyproject.toml"))["contracts_options"]
        if options["type"] == "layers"
    ]
    return [re.sub(r"[()]", "", layer) for layer in contract["layers"]]


def test_contract_is_the_documented_one() -> None:
    text = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    picture = re.search(r"Who may import whom.*?\n\n((?:    .+\n)+)", text)
    assert picture is not None
    documented = [line.strip() for line in picture.group(1).splitlines()]
    files = ("__main__", "public", "hub", "errors")
    rooms = [layer for layer in layers_of_contract() if not layer.startswith(files)]
    assert rooms == documented
