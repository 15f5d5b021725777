"""``dynaconv tables``."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from typer import Option

from dynaconv.errors import UserError, suggest

if TYPE_CHECKING:
    from dynaconv.papers.tables import Row

FORMATS = ("table", "json", "csv", "markdown")


def tables(
    format: Annotated[str, Option(help="table, json, csv or markdown.")] = "table",
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
    from dynaconv.cli.text import aligned

    cells = [[f"{row.paper} {row.table}", *_cells(row)] for row in rows]
    header = ["table", "row", "what", "published", "ours", "difference", "rule", "note"]
    return aligned(header, cells, right=(3, 4, 5)) + f"\n\n{_summary(rows)}"


def _summary(rows: list[Row]) -> str:
    differences = [abs(row.difference) for row in rows if row.difference is not None]
    near = sum(difference <= 1 for difference in differences)
    missing = len(rows) - len(differences)
    return (
        f"{len(rows)} published figures; {len(differences)} counted, {near} of them within 1 % of the published one; "
        f"{missing} belong to networks that are not here yet."
    )
