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
    from dynaconv.counting.table import short
    from dynaconv.models import ZOO
    from dynaconv.papers.subjects import subject
    from dynaconv.papers.tables import count

    names = [name for name in ZOO if fnmatchcase(name, pattern)]
    if not names:
        raise UserError(f"No network is called {pattern!r}. {suggest(pattern, ZOO)}")
    rows = []
    for name in names:
        report = count(subject(name))
        spec = ZOO[name]
        top1 = "-" if spec.top1 is None else f"{spec.top1:.1f} %"
        remark = f" ({spec.remark})" if spec.remark else ""
        costs = [short(report.parameters.total), short(report.total)]
        rows.append([name, *costs, top1, reproduced(name), f"{spec.row}{remark}"])
    header = ["name", "params", "MAdds", "published top-1", "reproduced", "paper, row"]
    print(aligned(header, rows, right=(1, 2, 3)))


def reproduced(name: str) -> str:
    """What the recipe of that name says of its claim; a dash where there is no such recipe."""
    from dynaconv.recipes import list_recipes, load

    return str(load(name)["claim"]["reproduced"]) if name in list_recipes() else "-"
