"""What the commands print: tables and sentences that fit the terminal, and are whole in a file or a pipe."""

from __future__ import annotations

import logging
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import TextIO

GAP = "  "
NARROWEST = 12  # characters of a column whose words are wrapped


def width(stream: TextIO | None = None) -> int | None:
    """Return the columns of the terminal, or None if the output (``sys.stdout`` by default) is not a terminal."""
    return shutil.get_terminal_size().columns if (stream or sys.stdout).isatty() else None


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = (), columns: int | None = None
) -> str:
    """Lay out a table; a cell may have several lines.

    Whole, every column is as wide as its widest line. Where ``columns`` do not suffice, the widest columns of words are
    wrapped; where that does not help either, every row becomes a paragraph with one line per cell.

    Args:
        header: names of the columns.
        rows: cells.
        right: places of the columns that are set to the right (numbers; they are never wrapped).
        columns: of the terminal; None for no limit.
    """
    widths = _widths([header, *rows])
    if columns is not None and _total(widths) > columns:
        fitting = _narrowed(widths, _longest_words([header, *rows]), right, columns)
        if fitting is None:
            return _paragraphs(header, rows, columns)
        widths = fitting
    bar = ["-" * width for width in widths]
    lines = [line for row in [header, bar, *rows] for line in _lines(row, widths, right)]
    return "\n".join(lines)


def sentences(text: str, columns: int | None = None) -> str:
    """Wrap every line of a text to the terminal; further lines keep the first one's indent."""
    if columns is None:
        return text
    wrapped = []
    for line in text.splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        wrapped.append(
            textwrap.fill(line, columns, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        )
    return "\n".join(wrapped)


def prepare(threads: int | None = None, first_process: bool = True) -> None:
    """Set up a command that computes: keep freed memory, the number of threads, messages on the standard error."""
    import torch

    from dynaconv.kernels.cpu import keep_freed_memory

    keep_freed_memory()
    if threads is not None:
        torch.set_num_threads(threads)
    logger = logging.getLogger("dynaconv")
    logger.setLevel(logging.INFO if first_process else logging.WARNING)
    if not logger.handlers:
        handler = _ToStandardError()
        handler.setFormatter(logging.Formatter("dynaconv: %(levelname)s: %(message)s"))
        logger.addHandler(handler)
        logger.propagate = False


class _ToStandardError(logging.Handler):
    """Writes to the standard error as it is then: it may have been put elsewhere since."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(line) for row in rows for line in row[place].split("\n")) for place in range(len(rows[0]))]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _longest_words(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max((len(word) for row in rows for word in row[place].split()), default=0) for place in range(len(rows[0]))]


def _narrowed(widths: Sequence[int], least: Sequence[int], right: Sequence[int], columns: int) -> list[int] | None:
    """Take characters from the widest columns of words, never from a word; None where that does not suffice."""
    narrow = list(widths)
    words = [place for place in range(1, len(widths)) if place not in right]  # names in the first column stay whole
    while _total(narrow) > columns:
        left = [place for place in words if narrow[place] > max(NARROWEST, least[place])]
        if not left:
            return None
        narrow[max(left, key=lambda place: narrow[place])] -= 1
    return narrow


def _lines(row: Sequence[str], widths: Sequence[int], right: Sequence[int]) -> list[str]:
    cells = [_wrapped(cell, width) for cell, width in zip(row, widths, strict=True)]
    height = max(map(len, cells))
    lines = []
    for index in range(height):
        parts = [cell[index] if index < len(cell) else "" for cell in cells]
        set_ = [
            part.rjust(width) if place in right else part.ljust(width)
            for place, (part, width) in enumerate(zip(parts, widths, strict=True))
        ]
        lines.append(GAP.join(set_).rstrip())
    return lines


def _wrapped(cell: str, width: int) -> list[str]:
    return [part for line in cell.split("\n") for part in (textwrap.wrap(line, width, break_on_hyphens=False) or [""])]


def _paragraphs(header: Sequence[str], rows: Sequence[Sequence[str]], columns: int) -> str:
    names = [name.replace("\n", " ") for name in header]
    blocks = []
    for row in rows:
        lines = [textwrap.fill(" ".join(row[0].split("\n")), columns, subsequent_indent="  ")]
        for name, cell in zip(names[1:], row[1:], strict=True):
            if cell:
                text = f"  {name}: " + " ".join(cell.split("\n"))
                lines.append(textwrap.fill(text, columns, subsequent_indent="    ", break_on_hyphens=False))
        blocks.append("\n".join(lines))
    return "\n".join(blocks)
