"""``inspect_run``: run a trained network over a data set and look at its routing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from dynaconv.analysis.routes.interventions import InterventionTables, measure_interventions, right_of
from dynaconv.analysis.routes.samples import Sample, choose_samples, fill_samples
from dynaconv.analysis.routes.statistics import (
    RoutingSums,
    dead_experts,
    kernel_similarity,
    mutual_information,
    top_classes,
    twin_experts,
)
from dynaconv.data import BadImages, Batches, default_cap
from dynaconv.data.frozen import Frozen
from dynaconv.errors import UserError, blame_input, suggest
from dynaconv.inspection import RecordedRouter, record_routing, routers_of
from dynaconv.inspection.observing import WHOLE
from dynaconv.tasks.classification.prediction import evaluation_source, plain_batches
from dynaconv.tasks.classification.source import Source, Subset
from dynaconv.tasks.task import TaskOptions
from dynaconv.train.run_folder.weights import Trained, load_trained

if TYPE_CHECKING:
    from numpy.typing import NDArray

RECORDING = "routing.parquet"
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


def inspect_run(
    run: Path,
    out: Path,
    settings: InspectSettings,
    watch: Callable[[str, int, int], None] | None = None,
    function: str | None = None,
) -> Inspection:
    """Record the routing of a trained classifier over a data set into ``out/routing.parquet``, and its statistics.

    Args:
        run: a run's folder (its best weights) or a weights file.
        out: folder, made if it is not there.
        watch: told what is being done, and how many images of how many are.
        function: ``path/to/file.py:function`` that builds the network, where it is one of the user's own.

    Raises:
        UserError: no dynamic layer; the task has no classes; other classes; no image; routing that is not finite.
    """
    from dynaconv.train.accelerator import make_accelerator
    from dynaconv.train.settings import LoopSettings

    on = {"device": settings.device, "amp": settings.amp, "channels_last": settings.channels_last}
    loop = LoopSettings.of(on)
    trained = load_trained(run, TaskOptions(channels_last=settings.channels_last), function)
    _check(trained)
    unknown = [name for name in settings.figure_classes if name not in trained.classes]
    if unknown:
        raise UserError(
            f"--classes {unknown[0]!r}: the network has no such class. {suggest(unknown[0], trained.classes)}"
        )
    source = _source(trained, settings)
    accelerator = make_accelerator(loop)
    model = trained.model.to(accelerator.device)
    with blame_input():
        out.mkdir(parents=True, exist_ok=True)
    look = _Look(trained, model, source, settings, accelerator, watch or (lambda *_: None))
    inspection = look.over(out / RECORDING)
    fill_samples(inspection.samples, out / RECORDING, source)
    return inspection


def _check(trained: Trained) -> None:
    if trained.task.name != "classification":
        raise UserError(
            f"{trained.path} is of the task {trained.task.name}; inspect is for classification, whose images have "
            "classes. dynaconv.record_routing(model) records the routing of any network."
        )
    try:
        routers_of(trained.model)
    except ValueError as error:
        name = trained.about.get("model", {}).get("name", "the network")
        raise UserError(
            f"{trained.path} is {name} with ordinary layers: it has no dynamic layer, so there is no routing to look "
            "at. Train with --method dynamic or --method condconv, or one of the papers' networks ('dynaconv list')."
        ) from error


def _source(trained: Trained, settings: InspectSettings) -> Source:
    source = evaluation_source(
        settings.data,
        trained.classes,
        everything=settings.everything,
        root=settings.data_root,
        eval_split=settings.eval_split,
    )
    if settings.limit is not None and settings.limit < len(source):
        rows = np.random.default_rng(settings.seed).permutation(len(source))[: settings.limit]
        source = Subset(source, sorted(int(row) for row in rows))
    return source


class Numbered:
    """A source whose labels are the numbers of its pictures, in an order of choice."""

    def __init__(self, source: Source, order: Sequence[int]) -> None:
        self.source = source
        self.labels: Sequence[int] = list(order)

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Any:
        return self.source.image(self.labels[index])

    def name(self, index: int) -> str:
        return self.source.name(self.labels[index])

    def listed(self, index: int) -> tuple[str, int]:
        return self.source.listed(self.labels[index])


class _Look:
    """One run of the network over the images."""

    def __init__(
        self,
        trained: Trained,
        model: nn.Module,
        source: Source,
        settings: InspectSettings,
        accelerator: Any,
        watch: Callable[[str, int, int], None],
    ) -> None:
        self.trained, self.model, self.source, self.settings = trained, model, source, settings
        self.accelerator, self.watch = accelerator, watch
        self.labels = np.asarray(source.labels)
        cap = default_cap(len(source)) if settings.max_bad_images is None else settings.max_bad_images
        self.bad_images = BadImages(settings.bad_images, cap)
        self.sums: dict[str, RoutingSums] = {}

    def batches(self, order: Sequence[int], batch_size: int) -> Batches:
        """``(images, numbers)`` in that order."""
        task: Any = self.trained.task
        return plain_batches(
            Numbered(self.source, order),
            task.preprocess,
            batch_size=batch_size,
            workers=self.settings.workers,
            bad_images=self.bad_images,
            device=self.accelerator.device,
        )

    def logits(self, batches: Batches, what: str) -> Iterator[tuple[Tensor, NDArray[Any]]]:
        """The network's outputs, and the numbers of the images."""
        memory = torch.channels_last if self.settings.channels_last else torch.contiguous_format
        done = 0
        try:
            with torch.no_grad(), self.accelerator.autocast():
                for images, numbers in batches:
                    yield self.model(images.contiguous(memory_format=memory)).float(), numbers.cpu().numpy()
                    done += len(images)
                    self.watch(what, done, len(self.source))
        finally:
            batches.close()

    def over(self, recording: Path) -> Inspection:
        right1 = right5 = 0
        read: list[int] = []
        classes = self.trained.classes
        with record_routing(self.model, recording) as recorder:
            for logits, rows in self.logits(
                self.batches(range(len(self.source)), self.settings.batch_size), "recording"
            ):
                labels = self.labels[rows]
                predicted = logits.argmax(dim=1).cpu().numpy()
                recorder.note(
                    image=rows.tolist(),
                    name=[self.source.name(int(row)) for row in rows],
                    label=labels.tolist(),
                    predicted=predicted.tolist(),
                )
                self._add(recorder.last, labels, rows)
                one, five = right_of(logits, labels)
                right1, right5 = right1 + one, right5 + five
                read += rows.tolist()
        images = len(read)
        if not images:
            raise UserError(f"{self.settings.data} has no image that could be read.")
        routers = [RouterReport(one, self.sums[one.name], self._similarity(one)) for one in recorder.routers]
        tables = None
        if self.settings.intervene:
            tables = measure_interventions(
                self.model,
                [report.router for report in routers],
                lambda order, size, what: self.logits(self.batches(order, size), what),
                self.labels,
                read,
                (right1 / images, right5 / images),
                batch_size=self.settings.batch_size,
                seed=self.settings.seed,
            )
        return Inspection(
            network=self.trained.about["model"]["name"],
            weights=str(self.trained.path),
            settings=self.settings,
            classes=classes,
            images=images,
            skipped=dict(self.bad_images.reasons),
            top1=right1 / images,
            top5=right5 / images,
            routers=routers,
            names=self.source.name,
            samples=choose_samples(routers[-1].sums, self.labels, self.settings.shown),
            interventions=tables,
        )

    def _add(self, last: dict[str, Tensor], labels: NDArray[Any], rows: NDArray[Any]) -> None:
        for name, tensor in last.items():
            weights = tensor.numpy()
            finite = np.isfinite(weights).all(axis=1)
            if not finite.all():
                first = self.source.name(int(rows[np.flatnonzero(~finite)[0]]))
                raise UserError(
                    f"The routing weights of {name!r} are not finite for {int((~finite).sum())} of {len(rows)} images "
                    f"(the first is {first}), so there is nothing to say about them. Did the run diverge? Look at its "
                    "losses, or take an earlier checkpoint; --amp no if this ran in half precision."
                )
            if name not in self.sums:
                self.sums[name] = RoutingSums(len(self.trained.classes), weights.shape[1])
            self.sums[name].update(weights, labels, rows)

    def _similarity(self, router: RecordedRouter) -> dict[str, NDArray[Any]]:
        found = {}
        for name in router.layers:
            layer: Any = self.model.get_submodule("" if name == WHOLE else name)
            bank = layer.mixed_bank() if hasattr(layer, "mixed_bank") else layer.weight
            if len(bank) == router.experts:
                found[name] = kernel_similarity(bank.detach().float().cpu().numpy())
        return found


def number(value: float | None) -> float | None:
    """Six digits, for JSON; None for what is not finite."""
    return float(f"{value:.6g}") if value is not None and np.isfinite(value) else None


def numbers(values: NDArray[Any]) -> Any:
    """Nested lists of :func:`number`."""
    return number(float(values)) if values.ndim == 0 else [numbers(part) for part in values]
