"""The picture: accuracy against MAdds, and the learning curves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dynaconv.analysis.comparison import Comparison, Row
from dynaconv.analysis.report import count
from dynaconv.analysis.statistics import mean, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers tell apart; markers and dashes say the same in grey print.
STYLES = (
    ("#000000", "o", "-"),
    ("#0072B2", "s", "--"),
    ("#D55E00", "^", "-."),
    ("#009E73", "D", ":"),
    ("#CC79A7", "v", "--"),
    ("#E69F00", "P", "-."),
    ("#56B4E9", "X", ":"),
)
FONT = 9
MARKED_EPOCHS = 20  # more markers would touch each other


def draw(comparison: Comparison) -> Figure:
    """Two panels; bars and bands are one standard deviation over the seeds to either side, small dots single runs."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(
        {"font.size": FONT, "pdf.fonttype": 42, "axes.spines.top": False, "axes.spines.right": False}
    ):
        figure = Figure(figsize=(7.2, 3.3), layout="constrained")
        FigureCanvasAgg(figure)  # no display is needed, and no global state of pyplot touched
        left, right = figure.subplots(1, 2)
        for row, style in zip(comparison.rows, _styles(len(comparison.rows)), strict=True):
            _point(figure, left, row, style)
            _curve(right, row, style)
        _dress(left, right, comparison)
    return figure


def _point(figure: Figure, axes: Axes, row: Row, style: tuple[str, str, str]) -> None:
    from matplotlib.transforms import offset_copy

    colour, marker, _ = style
    beside = offset_copy(axes.transData, fig=figure, x=7, units="points")  # the bar would hide the dots
    axes.plot(
        [row.madds] * len(row.top1),
        row.top1,
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
        [row.top1_mean],
        yerr=None if row.top1_spread is None else [row.top1_spread],
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


def _curve(axes: Axes, row: Row, style: tuple[str, str, str]) -> None:
    colour, marker, dash = style
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
    room = 0.18 * (max(madds) - min(madds)) or 0.1 * max(madds)
    left.set_xlim(min(madds) - room, max(madds) + room)
    left.xaxis.set_major_locator(MaxNLocator(4))
    left.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value).replace(" ", "\u2009")))
    left.set_xlabel(f"MAdds per image ({comparison.image_size}x{comparison.image_size})")
    left.set_ylabel("top-1 accuracy, %")
    left.set_title(_title(comparison), fontsize=FONT, loc="left")
    right.set_xlabel("epoch")
    right.set_ylabel("top-1 accuracy, %")
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.legend(frameon=False, loc="lower right", handlelength=2.6)
    for axes in (left, right):
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.set_axisbelow(True)


def _title(comparison: Comparison) -> str:
    seeds = len(comparison.seeds)
    return f"{comparison.backbone}, " + (f"mean ± s.d. of {seeds} seeds" if seeds > 1 else "one seed")


def _styles(rows: int) -> list[Any]:
    return [STYLES[index % len(STYLES)] for index in range(rows)]
