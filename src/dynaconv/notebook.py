"""Tables for notebooks: HTML with every text escaped, in the colours of the page that shows it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from html import escape

_CELL = "padding:2px 10px; white-space:pre-line; vertical-align:top; text-align:"


def html_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Collection[int] = (),
    notes: Sequence[str] = (),
    total: bool = False,
) -> str:
    """A table for ``_repr_html_``.

    Args:
        header: names of the columns.
        rows: cells.
        right: places of the columns of numbers, which are set to the right.
        notes: lines under the table.
        total: the last row is a total, with a rule above it.
    """

    def line(cells: Sequence[str], tag: str, style: str = "") -> str:
        made = [
            f'<{tag} style="{_CELL}{"right" if place in right else "left"}">{escape(cell)}</{tag}>'
            for place, cell in enumerate(cells)
        ]
        return f"<tr{style}>{''.join(made)}</tr>"

    rule = ' style="border-top:1px solid currentColor; font-weight:bold"'
    body = [line(row, "td", rule if total and row is rows[-1] else "") for row in rows]
    style = "border-collapse:collapse"
    parts = [f'<table style="{style}"><thead>{line(header, "th")}</thead><tbody>{"".join(body)}</tbody></table>']
    if notes:
        text = "\n".join(escape(note) for note in notes)
        parts.append(f'<div style="white-space:pre-wrap; font-family:monospace; margin:4px 10px">{text}</div>')
    return f"<div>{''.join(parts)}</div>"
