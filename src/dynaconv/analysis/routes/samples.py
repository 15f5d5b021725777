"""The images that the page shows: some of every class, and those that experts weigh highest."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dynaconv.analysis.routes.statistics import RoutingSums, top_classes
from dynaconv.inspection import read_routing
from dynaconv.tasks.classification.source import Source

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

SIDE = 72  # pixels of a picture on the page
FIGURE_EXPERTS, FIGURE_CLASSES = 4, 10  # CondConv, Figure 6
PAGE_EXPERTS = 16  # of the last router: their exemplars are on the page; 160 pictures are about 300 KB


@dataclass
class Sample:
    """One image with its route.

    Attributes:
        row: its number in the data.
        picked: it can be picked on the page; else it is there as an expert's exemplar alone.
        name, label, predicted: known once the recording was read.
        weights: by the router's name its K routing weights.
        picture: the image, small.
    """

    row: int
    picked: bool
    name: str = ""
    label: int = -1
    predicted: int = -1
    weights: dict[str, list[float]] = field(default_factory=dict)
    picture: Image | None = None

    def data_uri(self) -> str:
        """The picture as JPEG inside an address."""
        if self.picture is None:
            return ""
        file = io.BytesIO()
        self.picture.save(file, "JPEG", quality=80)
        return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def choose_samples(last: RoutingSums, labels: NDArray[Any], shown: int) -> list[Sample]:
    """``shown`` images in turns from all classes, and the exemplars of the experts of the last router.

    Images that could not be read are not among them: they were never counted, and are dropped by :func:`fill_samples`.
    """
    by_class = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    longest = max((len(rows) for rows in by_class), default=0)
    turns = [int(rows[turn]) for turn in range(longest) for rows in by_class if turn < len(rows)]
    picked = turns[:shown]
    means = last.class_mean()
    exemplars = [
        int(last.most_image[label, expert])
        for expert in range(min(last.experts, PAGE_EXPERTS))
        for label in top_classes(means, expert, FIGURE_CLASSES)
    ]
    extra = sorted(set(exemplars) - set(picked) - {-1})
    order = sorted(picked, key=lambda row: (labels[row], row))
    return [Sample(row, True) for row in order] + [Sample(row, False) for row in extra]


def fill_samples(samples: list[Sample], recording: Path, source: Source) -> None:
    """Read the samples' routes from the recording, and their pictures from the data; drop unreadable ones."""
    wanted = {sample.row: sample for sample in samples}
    _, groups = read_routing(recording)
    found = set()
    for group in groups:
        for place, row in enumerate(group.columns["image"]):
            sample = wanted.get(row)
            if sample is None:
                continue
            found.add(row)
            sample.name = group.columns["name"][place]
            sample.label, sample.predicted = group.columns["label"][place], group.columns["predicted"][place]
            sample.weights = {
                name: [round(float(weight), 4) for weight in weights[place]] for name, weights in group.weights.items()
            }
    samples[:] = [sample for sample in samples if sample.row in found]
    for sample in samples:
        picture = source.image(sample.row).convert("RGB")
        larger = max(picture.size)
        scale = SIDE / larger
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        sample.picture = picture.resize(size, resample=0 if scale > 1 else 1, reducing_gap=None)
