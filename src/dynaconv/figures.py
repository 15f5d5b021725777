"""The common style of all figures, legible on screen, in print and in grey."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FONT = 9


class Style(NamedTuple):
    """A line's colour, marker and dashes."""

    colour: str
    marker: str
    dash: str


# Okabe and Ito's colours, which colour-blind readers tell apart; markers and dashes say the same in grey print.
STYLES = (
    Style("#000000", "o", "-"),
    Style("#0072B2", "s", "--"),
    Style("#D55E00", "^", "-."),
    Style("#009E73", "D", ":"),
    Style("#CC79A7", "v", "--"),
    Style("#E69F00", "P", "-."),
    Style("#56B4E9", "X", ":"),
)


def style(index: int) -> Style:
    """Return the style of a picture's line by its place; the first is the one that others are compared with."""
    return STYLES[index % len(STYLES)]


@contextmanager
def new_figure(width: float, height: float) -> Iterator[Figure]:
    """Make a figure in the common look; no display is needed, and no global state of pyplot touched.

    Args:
        width, height: in inches.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(
        {"font.size": FONT, "pdf.fonttype": 42, "axes.spines.top": False, "axes.spines.right": False}
    ):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def with_grid(axes: Axes) -> None:
    """Draw a light grid behind the lines."""
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def short_number(number: float) -> str:
    """Three digits and a letter.

    >>> short_number(408938), short_number(1.2e9), short_number(950)
    ('409 K', '1.20 G', '950')
    """
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " K")):
        if number >= 0.9995 * size:
            value = number / size
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}{letter}"
    return f"{number:.0f}"
