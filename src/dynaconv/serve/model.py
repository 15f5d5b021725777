"""The network that is served, run on batches of jobs."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dynaconv.errors import UserError, suggest
from dynaconv.inference import FreezeReport, FrozenLayer
from dynaconv.inspection import record_routing, routers_of
from dynaconv.layers import DynamicLayer
from dynaconv.serve.batching import Job
from dynaconv.tasks import call_with_options
from dynaconv.tasks.task import Task

if TYPE_CHECKING:
    from PIL.Image import Image

PREDICTION_OPTIONS = ("top", "min_score")
"""The options of a task's ``predict`` that a client may set."""


@dataclass(frozen=True)
class Found:
    """What was found in one image.

    Attributes:
        predictions: as the task returns them, in JSON types.
        routing: for every router, in the order in which they run, its name, its layers and the K weights; None where
            they were not asked for.
    """

    predictions: list[Any]
    routing: list[dict[str, Any]] | None = None


class Served:
    """A network with its task, ready to predict.

    Args:
        network: in evaluation mode, on its device.
        task: made by ``of_weights``.
        name: of the network, for people.
        source: the file that it was read from.
    """

    def __init__(self, network: nn.Module, task: Task, name: str, source: Path, device: torch.device) -> None:
        self.network, self.task, self.name, self.source, self.device = network, task, name, source, device
        known = inspect.signature(task.predict).parameters
        self.options = {option: known[option].default for option in PREDICTION_OPTIONS if option in known}
        """The options that a client may set, with their defaults."""
        dynamic = any(isinstance(module, (DynamicLayer, FrozenLayer)) for module in network.modules())
        self.routers = [(place.name, place.layers) for place in routers_of(network)] if dynamic else []

    @property
    def classes(self) -> list[str]:
        """Names of the classes; empty where the task has none."""
        return list(getattr(self.task, "classes", []))

    def describe(self) -> str:
        """One line: what was loaded."""
        report = self.network.__dict__.get("freeze_report")
        layers = sum(len(layers) for _, layers in self.routers)
        frozen = f", frozen (largest error {report.error:.0e})" if isinstance(report, FreezeReport) else ", not frozen"
        classes = f", {len(self.classes)} classes" if self.classes else ""
        return f"{self.name} for {self.task.name}{classes}, {layers} dynamic layers{frozen}, on {self.device}"

    def example(self, picture: Image) -> Any:
        """See :meth:`dynaconv.tasks.task.Task.example`."""
        return self.task.example(picture)

    def run(self, jobs: Sequence[Job]) -> list[Found]:
        """One batch. Every job gets what its own options ask for, whatever the others' are."""
        batch = self.task.batch([job.example for job in jobs], self.device)
        asked = [{**self.options, **job.options} for job in jobs]
        widest = _widest(asked)
        used: list[tuple[str, tuple[str, ...], list[list[float]]]] = []
        with torch.no_grad():
            if self.routers and any(job.routing for job in jobs):
                # A frozen layer does not take its router into its one call while it is watched; the result is the same.
                with record_routing(self.network) as recorder:
                    found = call_with_options(self.task.predict, "the task", self.network, batch, **widest)
                weights = recorder.weights
                used = [(one.name, one.layers, _rows(weights[one.name], len(jobs))) for one in recorder.routers]
            else:
                found = call_with_options(self.task.predict, "the task", self.network, batch, **widest)
        results = []
        for row, (job, predictions) in enumerate(zip(jobs, found, strict=True)):
            routing = [{"router": name, "layers": layers, "weights": rows[row]} for name, layers, rows in used]
            results.append(Found(_narrowed(predictions, asked[row], widest), routing if job.routing else None))
        return results

    def check(self) -> None:
        """Run one grey picture.

        Raises:
            UserError: the network does not run, or its outputs are not those of its task.
        """
        from PIL import Image

        try:
            (found,) = self.run([Job(self.example(Image.new("RGB", (64, 64), (128, 128, 128))), routing=True)])
        except UserError:
            raise
        except Exception as error:  # a network of somebody's fails in whichever way it likes
            raise UserError(
                f"the network of {self.source} does not run on a picture: {type(error).__name__}: {error}"
            ) from error
        if not is_finite(found.predictions):
            raise UserError(f"the network of {self.source} returns infinite numbers or NaN for a grey picture")

    def warm_up(self, max_batch: int) -> None:
        """Run batches of several sizes: kernels are compiled or loaded and memory is taken before the first request."""
        from PIL import Image

        example = self.example(Image.new("RGB", (64, 64), (128, 128, 128)))
        for size in sorted({1, 2, max_batch}):
            for _ in range(2):
                self.run([Job(example)] * min(size, max_batch))


def check_options(given: Iterable[str], known: Collection[str]) -> None:
    """Raise UserError for an option that the task's prediction does not have."""
    for name in given:
        if name not in known:
            raise UserError(
                f"There is no option {name!r} of this network's predictions. {suggest(name, [*known, 'routing'])}"
            )


def _rows(weights: Tensor, count: int) -> list[list[float]]:
    """Of the first so many examples: the mirrored ones of keypoints come behind them."""
    return [[round(weight, 5) for weight in row] for row in weights[:count].tolist()]


def _widest(asked: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The options with which one call finds all that every one of several asks for."""
    widest: dict[str, Any] = {}
    if "top" in asked[0]:
        tops = [one["top"] for one in asked]
        widest["top"] = None if None in tops else max(tops)
    if "min_score" in asked[0]:
        widest["min_score"] = min(one["min_score"] for one in asked)
    return widest


def _narrowed(predictions: list[Any], asked: dict[str, Any], widest: dict[str, Any]) -> list[Any]:
    if asked.get("min_score") != widest.get("min_score"):
        predictions = [one for one in predictions if one["score"] >= asked["min_score"]]
    return predictions[: asked.get("top")]


def is_finite(value: Any) -> bool:
    """Whether there is no NaN and no infinity in a value of JSON types."""
    if isinstance(value, dict):
        return all(map(is_finite, value.values()))
    if isinstance(value, list):
        return all(map(is_finite, value))
    return not isinstance(value, float) or value - value == 0
