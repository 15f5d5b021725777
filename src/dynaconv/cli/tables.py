"""``dynaconv list`` and ``dynaconv tables``: the papers' networks, and what is published of them beside our counts."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated

from typer import Argument

from dynaconv.cli.options import choice
from dynaconv.cli.terminal import sentences, table, width
from dynaconv.errors import UserError, suggest

if TYPE_CHECKING:
    from dynaconv.papers.tables import Row

FORMATS = ("table", "json", "csv", "markdown")


def list_models(
    pattern: Annotated[str, Argument(help="Shell pattern of names, such as 'dy_*'.")] = "*",
) -> None:
    """List the papers' networks: what they are, what they cost, what is published of them, and what was reproduced."""
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
    print(table(header, rows, right=(1, 2, 3), columns=width()))


def reproduced(name: str) -> str:
    """What the recipe of that name says of its claim; a dash where there is no such recipe."""
    from dynaconv.recipes import list_recipes, load

    return str(load(name)["claim"]["reproduced"]) if name in list_recipes() else "-"


def tables(
    format: Annotated[str, choice(*FORMATS, help="table, json, csv or markdown.")] = "table",
) -> None:
    """Print every cost figure that the two papers publish beside ours, counted now from the networks themselves."""
    if format not in FORMATS:
        raise UserError(f"The format is {format!r}; expected table, json, csv or markdown. {suggest(format, FORMATS)}")
    from dynaconv.papers.tables import count_tables

    rows = _counted(count_tables)
    if format == "json":
        print(json.dumps([vars(row) for row in rows], indent=2))
    elif format == "csv":
        print(_as_csv(rows), end="")
    elif format == "markdown":
        print("\n".join(as_markdown(rows)))
    else:
        print(_as_table(rows))


def _counted(count: Callable[..., list[Row]]) -> list[Row]:
    """Count, with a bar on standard error where that is a terminal."""
    if not sys.stderr.isatty():
        return count()
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Counting", total=None)
        return count(progress=lambda done, whole: bar.update(task, completed=done, total=whole))


def _as_csv(rows: list[Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["paper", "table", "row", "quantity", "published", "ours", "difference", "rule", "note"])
    for row in rows:
        difference = "" if row.difference is None else f"{row.difference:.2f}"
        ours = "" if row.ours is None else row.ours
        words = [row.paper, row.table, row.row, row.quantity]
        writer.writerow([*words, row.published, ours, difference, row.rule, row.note])
    return text.getvalue()


def as_markdown(rows: list[Row]) -> list[str]:
    """The lines of a Markdown table, as the pages in docs/ have them."""
    lines = [
        "| table | row | what | published | ours | difference | rule | note |",
        "| --- | --- | --- | ---: | ---: | ---: | --- | --- |",
    ]
    return lines + [f"| {' | '.join([row.table, *_cells(row)])} |" for row in rows]


def _cells(row: Row) -> list[str]:
    return [
        row.row,
        "MAdds" if row.quantity == "madds_m" else "params",
        f"{row.published:g}M",
        "-" if row.ours is None else f"{row.ours:.2f}M",
        "-" if row.difference is None else f"{row.difference:+.2f} %",
        row.rule,
        row.note,
    ]


def _as_table(rows: list[Row]) -> str:
    cells = [[f"{row.paper} {row.table}", *_cells(row)] for row in rows]
    header = ["table", "row", "what", "published", "ours", "difference", "rule", "note"]
    columns = width()
    return table(header, cells, right=(3, 4, 5), columns=columns) + f"\n\n{sentences(_summary(rows), columns)}"


def _summary(rows: list[Row]) -> str:
    differences = [abs(row.difference) for row in rows if row.difference is not None]
    near = sum(difference <= 1 for difference in differences)
    missing = len(rows) - len(differences)
    return (
        f"{len(rows)} published figures; {len(differences)} counted, {near} of them within 1 % of the published one; "
        f"{missing} belong to networks that are not here yet."
    )
