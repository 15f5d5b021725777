"""The picture of a sweep: time per image, and peak memory, over the swept value."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dynaconv.bench.sweep import Point
from dynaconv.errors import cannot_write
from dynaconv.figures import FONT, new_figure, style, with_grid
from dynaconv.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLES = {
    "static": ("best static", *style(0)),
    "ours": ("ours", *style(1)),
    "usual": ("usual (groups = batch)", *style(2)),
    "timm": ("timm", *style(3)),
}
LABELS = {
    "experts": "experts K",
    "batch": "batch, images",
    "width": "width, %",
    "size": "image height and width, pixels",
    "threads": "threads",
}
DOUBLING = ("experts", "batch", "threads")


def draw(points: Sequence[Point]) -> Figure:
    """Left the time per image, its quartiles as a band; right the peak memory, where it was measured."""
    memory = all(point.result.environment["peak_memory_mib"] for point in points)
    with new_figure(7.2 if memory else 3.8, 3.3) as figure:
        panels = figure.subplots(1, 2 if memory else 1, squeeze=False)[0]
        _times(panels[0], points)
        if memory:
            _memory(panels[1], points)
        for axes in panels:
            _dress(axes, points)
        figure.suptitle(_title(points[0]), fontsize=FONT, x=0.01, ha="left")
    return figure


def save(points: Sequence[Point], path: Path) -> None:
    """Draw into a file, which is whole or not there; its suffix, .png or .pdf, is the format.

    Raises:
        RunError: the disk is full.
        UserError: the file cannot be written.
    """
    picture = io.BytesIO()
    draw(points).savefig(picture, dpi=200, format=path.suffix.removeprefix("."))
    try:
        write_whole(path, lambda file: file.write(picture.getvalue()))
    except OSError as error:
        raise cannot_write(path, error) from error


def _times(axes: Axes, points: Sequence[Point]) -> None:
    for role, (label, colour, marker, dash) in STYLES.items():
        shown = [point for point in points if getattr(point.result, f"{role}_ms") is not None]
        if not shown:
            continue
        values = [point.value for point in shown]
        centre = [getattr(point.result, f"{role}_ms") / point.result.batch for point in shown]
        bands = [
            [edge / point.result.batch for edge in point.result.environment["milliseconds_quartiles"][role]]
            for point in shown
        ]
        low, high = zip(*bands, strict=True)
        axes.plot(values, centre, color=colour, linestyle=dash, linewidth=1.5, marker=marker, markersize=4, label=label)
        axes.fill_between(values, low, high, color=colour, alpha=0.15, linewidth=0)
    clock = "processor time" if points[0].result.environment["clock"] == "processor" else "time"
    axes.set_ylabel(f"{clock} per image, ms")


def _memory(axes: Axes, points: Sequence[Point]) -> None:
    values = [point.value for point in points]
    for role, label in (("static", "static"), ("ours", "ours")):
        _, colour, marker, dash = STYLES[role]
        peaks = [point.result.environment["peak_memory_mib"][role] for point in points]
        axes.plot(values, peaks, color=colour, linestyle=dash, linewidth=1.5, marker=marker, markersize=4, label=label)
    axes.set_ylabel("peak memory, MiB")


def _dress(axes: Axes, points: Sequence[Point]) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    what, values = points[0].what, [point.value for point in points]
    if what in DOUBLING:
        axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(values))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel(LABELS[what])
    axes.set_ylim(bottom=0)
    with_grid(axes)
    axes.legend(frameon=False, handlelength=2.6)


def _title(point: Point) -> str:
    """The title: the settings that do not change, and the machine."""
    result, facts = point.result, point.result.environment
    said = {
        "width": result.model if point.what != "width" else result.model.rpartition("_")[0],
        "mode": {"infer": "inference", "train": "training step"}[result.mode],
        "batch": f"batch {result.batch}",
        "size": f"{facts['size']} px",
        "threads": f"{result.threads} thread" + "s" * (result.threads > 1),
    }
    kept = [text for what, text in said.items() if what == "width" or what != point.what]
    kept += [f"{name} {value}" for name, value in facts["model_args"].items() if name != point.what]
    kept += [result.dtype, *([f"{facts['bank_dtype']} bank"] if facts["bank_dtype"] else [])]
    machine = facts["processor"] if result.device == "cpu" else facts["gpu"]
    return f"{', '.join(kept)}\n{machine}, torch {facts['torch']}"
