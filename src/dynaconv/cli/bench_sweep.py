"""``dynaconv bench --sweep``: rows as they are measured, then the picture."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dynaconv.errors import UserError, blame_input

if TYPE_CHECKING:
    from dynaconv.bench import BenchSettings
    from dynaconv.bench.sweep import Point


def check_words(sweep: str | None, values: str | None, figures: list[Path] | None, table12: bool) -> None:
    """Refuse what would be ignored, and figures that could not be written after long measurements."""
    if sweep is None and (values is not None or figures):
        raise UserError(
            "--values and --figure belong to a sweep; expected --sweep experts, batch, width, size or threads."
        )
    if sweep is not None and table12:
        raise UserError("--table12 and --sweep are two measurements; ask for one at a time.")
    for path in figures or []:
        _check_figure(path)


def run_sweep(settings: BenchSettings, what: str, values: str | None, figures: list[Path], as_json: bool) -> None:
    """Measure, print and draw; with JSON, the rows go to the standard error as a sign of life."""
    from dynaconv.bench.sweep import HEADING, LEGEND, sweep

    rows = sys.stderr if as_json else sys.stdout
    points: list[Point] = []
    with blame_input():
        for point in sweep(settings, what, _numbers(values)):
            if not points:
                print(f"{LEGEND}\n{what:<8}{HEADING}", file=rows)
            print(point, file=rows, flush=True)
            points.append(point)
        if as_json:
            print(json.dumps([point.plain() for point in points], indent=2))
        for path in figures:
            from dynaconv.bench.figure import save

            save(points, path)


def _numbers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise UserError(f"--values is {text!r}; expected whole numbers separated by commas, such as 1,2,4") from None


def _check_figure(path: Path) -> None:
    from importlib.util import find_spec

    if path.suffix not in (".png", ".pdf"):
        raise UserError(f"--figure is {str(path)!r}; expected a file that ends in .png or .pdf")
    if not path.parent.is_dir():
        raise UserError(f"--figure is {str(path)!r}, and there is no folder {str(path.parent)!r}; make it first")
    if find_spec("matplotlib") is None:
        raise UserError("--figure needs matplotlib, which is not installed; install the extra: dynaconv[train]")
