"""The figures of a run: one record per epoch, and the result."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dynaconv.tasks.task import Metric


@dataclass(frozen=True)
class EpochRecord:
    """One epoch.

    Attributes:
        epoch: counted from 0.
        train_loss: mean over the epoch's examples (of the steps that were not dropped).
        metrics: of the evaluation, by name, as the task returns them (classification: ``eval_loss``, ``top1`` and
            ``top5``, the last two as fractions of 1); empty if the epoch was not evaluated. Each is an attribute too.
        lr: of the epoch's last step.
        temperature: of the softmax routers as they were evaluated; ``None`` without any.
        images_per_second: in training, loading included, over all processes.
        train_seconds, eval_seconds: duration of the two parts.
        dropped_steps: steps dropped because loss or gradient was not finite.
        bad_images: unreadable images met since the run began.
        penalties: by name, mean over the epoch's examples of the terms that regularisation adds to the loss, before
            their factors; ``train_loss`` is without them.
        routing_entropy: by router, mean entropy of its routing weights as a share of log K: 1 even, 0 one expert.
    """

    epoch: int
    train_loss: float
    metrics: dict[str, float]
    lr: float
    temperature: float | None
    images_per_second: float
    train_seconds: float
    eval_seconds: float
    dropped_steps: int = 0
    bad_images: int = 0
    routing_entropy: dict[str, float] = field(default_factory=dict)
    penalties: dict[str, float] = field(default_factory=dict)

    def __getattr__(self, name: str) -> float:
        """A metric by its name, e.g. ``record.top1``; AttributeError if this epoch was not evaluated."""
        metrics = self.__dict__.get("metrics", {})
        if name not in metrics:
            known = ", ".join(metrics) or "none: it was not evaluated"
            raise AttributeError(f"this epoch has no {name!r}; its metrics are {known}")
        return float(metrics[name])

    def plain(self) -> dict[str, Any]:
        """As a dictionary of plain types."""
        return asdict(self)


@dataclass(frozen=True)
class FitResult:
    """The outcome of a run.

    Every metric is an attribute: ``result.top1`` is the last epoch's, ``result.best_top1`` the best of all epochs.

    Attributes:
        history: one record per epoch.
        best: name of the metric that chooses the best epoch, e.g. ``top1``.
        train_images: examples of an epoch.
        checkpoint: the last checkpoint, if the run had an output folder.
        metrics: what the records hold, and how it is shown.
    """

    history: list[EpochRecord]
    best: str
    train_images: int
    checkpoint: Path | None = None
    metrics: tuple[Metric, ...] = ()

    def __getattr__(self, name: str) -> float:
        metrics = {metric.name: metric for metric in self.__dict__.get("metrics", ())}
        if name in metrics:
            return float(self.history[-1].metrics[name])
        chosen = metrics.get(name.removeprefix("best_"))
        if chosen is None or not name.startswith("best_"):
            raise AttributeError(f"the result has no {name!r}; its metrics are {', '.join(metrics)}")
        values = [record.metrics[chosen.name] for record in self.history if chosen.name in record.metrics]
        return float(max(values) if chosen.higher_is_better else min(values))

    def summary(self) -> str:
        """The deciding metric for people: of the last epoch, and the best of all.

        >>> record = EpochRecord(0, 1.0, {"top1": 0.5}, 0.1, None, 1.0, 1.0, 1.0)
        >>> FitResult([record], "top1", 8, metrics=(Metric("top1", "top-1", percent=True),)).summary()
        'top-1 50.00 % (best 50.00 %)'
        """
        metric = next(metric for metric in self.metrics if metric.name == self.best)
        last, best = (metric.text(getattr(self, name)) for name in (self.best, f"best_{self.best}"))
        return f"{metric.label} {last} (best {best})"

    @property
    def train_seconds_per_image(self) -> float:
        """Mean duration of training, loading included. The first epoch warms up and is left out if there are more."""
        measured = self.history[1:] or self.history
        return sum(record.train_seconds for record in measured) / (len(measured) * self.train_images)
