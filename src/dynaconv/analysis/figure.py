"""The picture of a comparison: accuracy against MAdds, the learning curves, the differences with their intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dynaconv.analysis.comparison import Comparison, Row
from dynaconv.analysis.statistics import mean, spread
from dynaconv.figures import FONT, Style, new_figure, short_number, style, with_grid
from dynaconv.tasks.network import height_and_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKED_EPOCHS = 20  # more markers would touch each other


def draw(comparison: Comparison) -> Figure:
    """Three panels: accuracy over MAdds, the learning curves, and the difference to static with its 95 % interval.

    In the first two, bars and bands are one standard deviation over the seeds to either side, small dots single runs.
    What decides is the third: a difference is shown where its interval leaves zero out.
    """
    with new_figure(10.4, 3.3) as figure:
        left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 0.85))
        for index, row in enumerate(comparison.rows):
            _point(figure, left, row, style(index))
            _curve(middle, row, style(index))
        _differences(right, comparison)
        _dress(left, middle, comparison)
    return figure


def _differences(axes: Axes, comparison: Comparison) -> None:
    """Every twin's difference to static, one row each, from the top in the order of the table."""
    twins = [(index, row, row.difference) for index, row in enumerate(comparison.rows) if row.difference is not None]
    for place, (index, _, difference) in enumerate(twins):
        colour, marker, _ = style(index)
        if difference.low is not None and difference.high is not None:
            axes.plot(
                [difference.low, difference.high], [place] * 2, color=colour, linewidth=1.6, marker="|", markersize=9
            )
        axes.plot([difference.mean], [place], color=colour, marker=marker, markersize=7, markeredgecolor="white")
    axes.axvline(0, color=style(0).colour, linewidth=0.9, linestyle="-")
    axes.set_yticks(range(len(twins)), [row.label for _, row, _ in twins])
    axes.set_ylim(len(twins) - 0.4, -0.6)
    metric = comparison.metric
    axes.set_xlabel(f"{metric.label} less static's" + (", points" if metric.percent else ""))
    interval = len(comparison.seeds) > 1
    axes.set_title("95 % interval over the seeds" if interval else "one seed: no interval", fontsize=FONT, loc="left")
    with_grid(axes)


def _point(figure: Figure, axes: Axes, row: Row, look: Style) -> None:
    from matplotlib.transforms import offset_copy

    colour, marker, _ = look
    beside = offset_copy(axes.transData, fig=figure, x=7, units="points")  # the bar would hide the dots
    axes.plot(
        [row.madds] * len(row.values),
        row.values,
        transform=beside,
        color=colour,
        marker="o",
        markersize=3,
        markeredgewidth=0,
        alpha=0.6,
        linestyle="none",
    )
    axes.errorbar(
        [row.madds],
        [row.mean],
        yerr=None if row.spread is None else [row.spread],
        color=colour,
        marker=marker,
        markersize=7,
        markeredgecolor="white",
        markeredgewidth=0.8,
        capsize=3.5,
        elinewidth=1.2,
        linestyle="none",
        zorder=3,
    )


def _curve(axes: Axes, row: Row, look: Style) -> None:
    colour, marker, dash = look
    epochs = [epoch for epoch, _ in row.curve]
    centre = [mean(values) for _, values in row.curve]
    shown = marker if len(epochs) <= MARKED_EPOCHS else ""
    axes.plot(epochs, centre, color=colour, linestyle=dash, linewidth=1.5, marker=shown, markersize=4, label=row.label)
    bands = [spread(values) for _, values in row.curve]
    if all(band is not None for band in bands):
        low = [value - (band or 0.0) for value, band in zip(centre, bands, strict=True)]
        high = [value + (band or 0.0) for value, band in zip(centre, bands, strict=True)]
        axes.fill_between(epochs, low, high, color=colour, alpha=0.15, linewidth=0)


def _dress(left: Axes, right: Axes, comparison: Comparison) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    madds = [row.madds for row in comparison.rows]
    height, width = height_and_width(comparison.image_size)
    room = 0.18 * (max(madds) - min(madds)) or 0.1 * max(madds)
    left.set_xlim(min(madds) - room, max(madds) + room)
    left.xaxis.set_major_locator(MaxNLocator(4))
    left.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value).replace(" ", "\u2009")))
    left.set_xlabel(f"MAdds per image ({height}x{width})")
    left.set_ylabel(comparison.metric.heading)
    left.set_title(_title(comparison), fontsize=FONT, loc="left")
    right.set_xlabel("epoch")
    right.set_ylabel(comparison.metric.heading)
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.legend(frameon=False, loc="lower right", handlelength=2.6)
    with_grid(left)
    with_grid(right)


def _title(comparison: Comparison) -> str:
    seeds = len(comparison.seeds)
    return f"{comparison.backbone}, " + (f"mean ± s.d. of {seeds} seeds" if seeds > 1 else "one seed")
