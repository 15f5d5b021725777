"""Plain aligned text."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """A table: columns as wide as their widest cell, those in ``right`` set to the right, a rule under the header."""
    widths = [max(len(row[place]) for row in [header, *rows]) for place in range(len(header))]
    bar = ["-" * width for width in widths]
    return "\n".join(_line(row, widths, right) for row in [header, bar, *rows])


def _line(row: Sequence[str], widths: Sequence[int], right: Sequence[int]) -> str:
    cells = [
        cell.rjust(width) if place in right else cell.ljust(width)
        for place, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()
