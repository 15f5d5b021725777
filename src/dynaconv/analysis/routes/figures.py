"""The figures of CondConv's section 5, for any network: routing by class and depth, distribution, spread, experts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dynaconv.analysis.routes.report import Inspection, RouterReport
from dynaconv.analysis.routes.samples import FIGURE_CLASSES, FIGURE_EXPERTS
from dynaconv.analysis.routes.statistics import BINS, top_classes
from dynaconv.figures import FONT, new_figure, style, with_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = 40  # routers; more markers would touch each other


def draw_all(found: Inspection) -> Iterator[tuple[str, Figure]]:
    """Every figure with the name of its file."""
    yield "classes-by-depth", classes_by_depth(found)
    yield "distribution", distribution(found)
    yield "within-class", within_class(found)
    yield "experts", experts(found)
    yield "depth", depth(found)
    yield "similarity", similarity(found)


def three_depths(routers: Sequence[RouterReport]) -> list[RouterReport]:
    """The first, the middle and the last router (fewer where there are not so many)."""
    places = sorted({0, (len(routers) - 1) // 2, len(routers) - 1})
    return [routers[place] for place in places]


def chosen_classes(found: Inspection, many: int = 4) -> list[int]:
    """The classes that the figures show: those asked for, or else the most different ones in the last router.

    They are chosen one by one: the class farthest from the mean of all, then always the one that is farthest from the
    nearest of those chosen.
    """
    if found.settings.figure_classes:
        return [found.classes.index(name) for name in found.settings.figure_classes]
    sums = found.routers[-1].sums
    here = [int(label) for label in np.flatnonzero(sums.count)]
    means = sums.class_mean()
    chosen: list[int] = []
    while here and len(chosen) < many:
        from_ = [means[label] for label in chosen] or [sums.mean()]
        far = [min(float(np.linalg.norm(means[label] - other)) for other in from_) for label in here]
        chosen.append(here.pop(int(np.argmax(far))))
    return sorted(chosen)


def classes_by_depth(found: Inspection) -> Figure:
    """Mean routing weights of a few classes at three depths (CondConv, Figure 3)."""
    routers, labels = three_depths(found.routers), chosen_classes(found)
    with new_figure(3.4 * len(routers), 3.0) as figure:
        for axes, report in zip(_row(figure, len(routers)), routers, strict=True):
            means = report.sums.class_mean()
            for place, label in enumerate(labels):
                _bars(axes, means[label], place, len(labels), found.classes[label])
            _by_expert(axes, report)
        figure.axes[0].set_ylabel("mean routing weight")
        figure.legend(
            *figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(labels), frameon=False
        )
    return figure


def distribution(found: Inspection) -> Figure:
    """How the routing weights are distributed: in the last router (CondConv, Figure 4), and in all by depth."""
    with new_figure(8.4, 3.0) as figure:
        left, right = figure.subplots(1, 2)
        last = found.routers[-1]
        share = 100 * last.sums.histogram / max(last.sums.histogram.sum(), 1)
        edges = np.linspace(0, 1, BINS + 1)
        left.stairs(share, edges, fill=True, color=style(1).colour)
        left.set_xlabel("routing weight")
        left.set_ylabel("percent of the weights")
        left.set_title(_short(last.router.name), fontsize=FONT, loc="left")
        with_grid(left)
        every = np.array([report.sums.histogram / max(report.sums.histogram.sum(), 1) for report in found.routers])
        picture = right.imshow(
            100 * every.T, origin="lower", aspect="auto", extent=(0.5, len(every) + 0.5, 0, 1), cmap="Blues"
        )
        right.set_xlabel("router, by depth")
        right.xaxis.get_major_locator().set_params(integer=True)
        right.set_ylabel("routing weight")
        figure.colorbar(picture, ax=right, label="percent of the weights")
    return figure


def within_class(found: Inspection) -> Figure:
    """Mean and standard deviation of the weights within two classes, in the last router (CondConv, Figure 5)."""
    labels = chosen_classes(found, 2)[:2]
    report = found.routers[-1]
    means, deviations = report.sums.class_mean(), report.sums.class_deviation()
    with new_figure(max(4.2, 0.3 * report.router.experts + 2), 3.0) as figure:
        axes = figure.subplots()
        for place, label in enumerate(labels):
            _bars(axes, means[label], place, len(labels), found.classes[label], deviations[label])
        _by_expert(axes, report)
        axes.set_ylabel("routing weight, mean ± s.d.")
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, -0.18), ncols=2)
    return figure


def experts(found: Inspection) -> Figure:
    """For a few experts of the last router: the classes with the highest mean weight, and in each the image with the
    largest (CondConv, Figure 6)."""
    report = found.routers[-1]
    means = report.sums.class_mean()
    shown = min(report.router.experts, FIGURE_EXPERTS)
    tops = [top_classes(means, expert, FIGURE_CLASSES) for expert in range(shown)]
    columns = max(1, max(map(len, tops)))
    pictures = {sample.row: sample.picture for sample in found.samples}
    with new_figure(0.8 * columns + 0.6, 1.1 * shown) as figure:
        grid = figure.subplots(shown, columns, squeeze=False)
        for expert, labels in enumerate(tops):
            for place in range(columns):
                axes = grid[expert, place]
                axes.set_xticks([])
                axes.set_yticks([])
                axes.spines[:].set_visible(False)
                if place < len(labels):
                    label = labels[place]
                    picture = pictures.get(int(report.sums.most_image[label, expert]))
                    if picture is not None:
                        axes.imshow(np.asarray(picture))
                    axes.set_title(f"{found.classes[label][:16]}\n{means[label, expert]:.2f}", fontsize=FONT - 3, pad=2)
            grid[expert, 0].set_ylabel(f"expert {expert}", fontsize=FONT)
    return figure


def depth(found: Inspection) -> Figure:
    """By depth: the entropy of the routing with its standard deviation over images, cut off at 0 and 1, and how
    class-specific it is."""
    with new_figure(8.4, 3.0) as figure:
        left, right = figure.subplots(1, 2)
        places = np.arange(1, len(found.routers) + 1)
        marker = "o" if len(places) <= MARKERS else ""
        entropy = np.array([report.sums.entropy_mean() for report in found.routers])
        deviation = np.nan_to_num([report.sums.entropy_deviation() for report in found.routers])
        bars = np.stack([np.minimum(deviation, entropy), np.minimum(deviation, 1 - entropy)]).clip(0)
        left.errorbar(places, entropy, yerr=bars, color=style(1).colour, marker=marker, markersize=4, capsize=2)
        left.set_ylabel("entropy / log K")
        left.set_ylim(0, 1.05)
        share = [report.sums.class_share() for report in found.routers]
        right.plot(
            places,
            [np.nan if value is None else value for value in share],
            color=style(2).colour,
            marker=marker,
            markersize=4,
        )
        right.set_ylabel("class share of the variance")
        right.set_ylim(min(0.0, *(value for value in share if value is not None), 0.0), 1.05)
        for axes in (left, right):
            axes.set_xlabel("router, by depth")
            axes.xaxis.get_major_locator().set_params(integer=True)
            with_grid(axes)
    return figure


def similarity(found: Inspection) -> Figure:
    """Cosines of the expert kernels: of the last layer as a matrix, and by depth the largest and the mean of each."""
    layers = [(layer, matrix) for report in found.routers for layer, matrix in report.similarity.items()]
    with new_figure(8.4, 3.2) as figure:
        left, right = figure.subplots(1, 2)
        if not layers:
            left.set_title("no layer has a bank of its own", fontsize=FONT, loc="left")
            return figure
        name, last = layers[-1]
        picture = left.imshow(last, vmin=-1, vmax=1, cmap="RdBu_r")
        left.set_title(_short(name), fontsize=FONT, loc="left")
        left.set_xlabel("expert")
        left.set_ylabel("expert")
        figure.colorbar(picture, ax=left, label="cosine of the kernels")
        pairs = [matrix[np.triu_indices(len(matrix), 1)] for _, matrix in layers]
        places = np.arange(1, len(layers) + 1)
        marker = "o" if len(places) <= MARKERS else ""
        for place, word in enumerate(("largest", "mean")):
            look = style(place + 1)
            values = [(some.max() if word == "largest" else some.mean()) if len(some) else np.nan for some in pairs]
            right.plot(places, values, color=look.colour, linestyle=look.dash, marker=marker, markersize=3, label=word)
        right.set_xlabel("dynamic layer, by depth")
        right.xaxis.get_major_locator().set_params(integer=True)
        right.set_ylabel("cosine of two experts")
        right.set_ylim(-1.05, 1.05)
        right.legend(frameon=False)
        with_grid(right)
    return figure


def _row(figure: Figure, many: int) -> list[Axes]:
    return list(figure.subplots(1, many, squeeze=False, sharey=True)[0])


def _bars(axes: Axes, heights: Any, place: int, many: int, label: str, deviations: Any = None) -> None:
    width = 0.8 / many
    centres = np.arange(len(heights)) + (place - (many - 1) / 2) * width
    axes.bar(
        centres,
        heights,
        width,
        color=style(place + 1).colour,
        label=label,
        yerr=None if deviations is None else np.nan_to_num(deviations),
        error_kw={"elinewidth": 1, "capsize": 2},
    )


def _by_expert(axes: Axes, report: RouterReport) -> None:
    axes.set_title(_short(report.router.name), fontsize=FONT, loc="left")
    axes.set_xlabel("expert")
    step = max(1, report.router.experts // 8)
    axes.set_xticks(range(0, report.router.experts, step))
    with_grid(axes)


def _short(name: str, most: int = 34) -> str:
    return name if len(name) <= most else "..." + name[3 - most :]
