"""A pass of the network over a data set: its routing recorded and summed up, its accuracy counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from dynaconv.analysis.routes.interventions import measure_interventions, right_of
from dynaconv.analysis.routes.report import Inspection, InspectSettings, RouterReport
from dynaconv.analysis.routes.samples import choose_samples
from dynaconv.analysis.routes.statistics import RoutingSums, kernel_similarity
from dynaconv.data import BadImages, Batches, default_cap
from dynaconv.errors import UserError
from dynaconv.inspection import RecordedRouter, record_routing
from dynaconv.inspection.observing import WHOLE
from dynaconv.tasks.classification.prediction import plain_batches
from dynaconv.tasks.classification.source import Source
from dynaconv.train.run_folder.weights import Trained

if TYPE_CHECKING:
    from numpy.typing import NDArray


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


class DataPass:
    """The passes of one network over its images."""

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

    def read(self, order: Sequence[int], batch_size: int, what: str) -> Iterator[tuple[Tensor, NDArray[Any]]]:
        """Every batch of images in that order, with their numbers."""
        batches = self.batches(order, batch_size)
        done = 0
        try:
            for images, numbers in batches:
                yield images, numbers.cpu().numpy()
                done += len(images)
                self.watch(what, done, len(order))
        finally:
            batches.close()

    def run(self, images: Tensor) -> Tensor:
        """The network's outputs, float32."""
        memory = torch.channels_last if self.settings.channels_last else torch.contiguous_format
        with torch.no_grad(), self.accelerator.autocast():
            outputs: Tensor = self.model(images.contiguous(memory_format=memory))
        return outputs.float()

    def over(self, recording: Path) -> Inspection:
        right1 = right5 = 0
        read: list[int] = []
        classes = self.trained.classes
        with record_routing(self.model, recording) as recorder:
            for images, rows in self.read(range(len(self.source)), self.settings.batch_size, "recording"):
                logits = self.run(images)
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
        if not read:
            raise UserError(f"{self.settings.data} has no image that could be read.")
        routers = [RouterReport(one, self.sums[one.name], self._similarity(one)) for one in recorder.routers]
        tables = None
        if self.settings.intervene:
            tables = measure_interventions(
                self.model,
                [report.router for report in routers],
                self.run,
                self.read,
                self.labels,
                read,
                (right1 / len(read), right5 / len(read)),
                batch_size=self.settings.batch_size,
                seed=self.settings.seed,
            )
        return Inspection(
            network=self.trained.about["model"]["name"],
            weights=str(self.trained.path),
            settings=self.settings,
            classes=classes,
            images=len(read),
            skipped=dict(self.bad_images.reasons),
            top1=right1 / len(read),
            top5=right5 / len(read),
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
