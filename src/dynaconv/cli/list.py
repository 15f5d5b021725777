"""``dynaconv list``."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated

from typer import Argument

from dynaconv.errors import UserError, suggest


def list_models(
    pattern: Annotated[str, Argument(help="Shell pattern of names, such as 'dy_*'.")] = "*",
) -> None:
    """List the papers' networks: what they are, what they cost, what is published of them, and what was reproduced."""
    from dynaconv.cli.text import aligned
    from dynaconv.papers.catalogue import read_catalogue

    networks = read_catalogue()
    rows = [
        [
            network.name,
            f"{network.parameters / 1e6:.2f}M",
            f"{network.madds / 1e6:.2f}M",
            f"{network.top1} %" if network.top1 else "-",
            reproduced(network.name),
            f"{network.row} ({network.remark})" if network.remark else network.row,
        ]
        for network in networks
        if fnmatchcase(network.name, pattern)
    ]
    if not rows:
        raise UserError(f"No network is called {pattern!r}. {suggest(pattern, [network.name for network in networks])}")
    header = ["name", "params", "MAdds", "published top-1", "reproduced", "paper, row"]
    print(aligned(header, rows, right=(1, 2, 3)))


def reproduced(name: str) -> str:
    """What the recipe of that name says of its claim; a dash where there is no such recipe."""
    from dynaconv.recipes import list_recipes, load

    return str(load(name)["claim"]["reproduced"]) if name in list_recipes() else "-"
