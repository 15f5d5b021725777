"""What was asked of an inspection, and what was found: of every router, and of the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dynaconv.analysis.routes.interventions import InterventionTables
from dynaconv.analysis.routes.samples import Sample
from dynaconv.analysis.routes.statistics import (
    STILL,
    RoutingSums,
    dead_experts,
    mutual_information,
    top_classes,
    twin_experts,
)
from dynaconv.data.frozen import Frozen
from dynaconv.inspection import RecordedRouter

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOP_CLASSES = 10  # CondConv, Figure 6


class InspectSettings(Frozen):
    """What to look at, and how.

    Attributes:
        data: name of the data set, as in training; its evaluation split is looked at.
        everything: every image below a folder of classes instead; some classes may be absent.
        batch_size, workers, bad_images, max_bad_images, data_root, eval_split: as in evaluation.
        limit: look at that many images only, drawn at random with ``seed``; all if ``None``.
        shown: images that can be picked on the page.
        figure_classes: classes that the figures show; four of them if empty.
        intervene: measure the interventions too.
        seed: of the drawn images and the shuffles.
        device, amp, channels_last: on what the network runs.
    """

    data: str
    everything: bool = False
    batch_size: int = 64
    workers: int = 0
    bad_images: str = "error"
    max_bad_images: int | None = None
    data_root: Path | None = None
    eval_split: str | None = None
    limit: int | None = None
    shown: int = 60
    figure_classes: tuple[str, ...] = ()
    intervene: bool = False
    seed: int = 0
    device: str = "auto"
    amp: str = "no"
    channels_last: bool = False


@dataclass(frozen=True)
class RouterReport:
    """One router: what it is, and the statistics of its weights.

    Attributes:
        router: name, layers, K, kind, resolution.
        sums: of its weights over all images.
        similarity: by layer, ``(K, K)`` cosines of the expert kernels.
    """

    router: RecordedRouter
    sums: RoutingSums
    similarity: dict[str, NDArray[Any]]

    def dead(self) -> list[int]:
        return dead_experts(self.sums.share_most)

    def constant(self) -> bool:
        """Whether every image has the same weights, up to rounding: the router does not look at the image any more."""
        return self.sums.images > 1 and bool((self.sums.deviation() < STILL).all())

    def twins(self) -> dict[str, list[tuple[int, int]]]:
        """By layer the pairs of experts with nearly equal kernels; layers without any are left out."""
        found = {layer: twin_experts(matrix) for layer, matrix in self.similarity.items()}
        return {layer: pairs for layer, pairs in found.items() if pairs}

    def plain(self, classes: Sequence[str], names: Callable[[int], str]) -> dict[str, Any]:
        """In JSON types; what is not defined (one image, weights that do not vary) is None."""
        sums, router = self.sums, self.router
        means = sums.class_mean()
        return {
            "name": router.name,
            "layers": list(router.layers),
            "router": router.kind,
            "experts": router.experts,
            "resolution": list(router.resolution),
            "mean": numbers(sums.mean()),
            "deviation": numbers(sums.deviation()),
            "usage": numbers(sums.usage()),
            "largest_share": numbers(sums.share_most),
            "entropy": number(sums.entropy_mean()),
            "entropy_deviation": number(sums.entropy_deviation()),
            "class_share": number(sums.class_share()),
            "mutual_information": number(mutual_information(sums.favourites)),
            "constant": self.constant(),
            "dead": self.dead(),
            "twins": {layer: [list(pair) for pair in pairs] for layer, pairs in self.twins().items()},
            "histogram": sums.histogram.tolist(),
            "outside": sums.outside,
            "class_mean": numbers(means),
            "class_deviation": numbers(sums.class_deviation()),
            "favourites": sums.favourites.tolist(),
            "correlation": numbers(sums.correlation()),
            "similarity": {layer: numbers(matrix) for layer, matrix in self.similarity.items()},
            "top_classes": [
                [
                    {
                        "class": classes[label],
                        "mean": number(means[label, expert]),
                        "weight": number(sums.most[label, expert]),
                        "image": names(int(sums.most_image[label, expert])),
                    }
                    for label in top_classes(means, expert, TOP_CLASSES)
                ]
                for expert in range(router.experts)
            ],
        }


@dataclass(frozen=True)
class Inspection:
    """What was found in a network; :meth:`plain` is ``inspect.json``."""

    network: str
    weights: str
    settings: InspectSettings
    classes: list[str]
    images: int
    skipped: dict[str, str]
    top1: float
    top5: float
    routers: list[RouterReport]
    names: Callable[[int], str]
    samples: list[Sample] = field(default_factory=list)
    interventions: InterventionTables | None = None

    def plain(self) -> dict[str, Any]:
        """In JSON types."""
        return {
            "format": 1,
            "network": self.network,
            "weights": self.weights,
            "data": self.settings.data,
            "images": self.images,
            "skipped": self.skipped,
            "classes": self.classes,
            "class_images": self.routers[0].sums.count.tolist(),
            "top1": self.top1,
            "top5": self.top5,
            "routers": [router.plain(self.classes, self.names) for router in self.routers],
            "interventions": None if self.interventions is None else self.interventions.plain(),
        }


def number(value: float | None) -> float | None:
    """Six digits, for JSON; None for what is not finite."""
    return float(f"{value:.6g}") if value is not None and np.isfinite(value) else None


def numbers(values: NDArray[Any]) -> Any:
    """Nested lists of :func:`number`."""
    return number(float(values)) if values.ndim == 0 else [numbers(part) for part in values]
