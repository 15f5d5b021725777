"""What a run leaves behind in numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class EpochRecord:
    """One epoch.

    Attributes:
        epoch: counted from 0.
        train_loss: mean over the epoch's examples (of the steps that were not dropped).
        metrics: of the evaluation, by name (``eval_loss``, ``top1``, ``top5``; top-k as fractions of 1); empty if the
            epoch was not evaluated.
        lr: of the epoch's last step.
        temperature: of the softmax routers as they were evaluated; ``None`` without any.
        images_per_second: in training, loading included, over all processes.
        train_seconds, eval_seconds: duration of the two parts.
        dropped_steps: steps dropped because loss or gradient was not finite.
        bad_images: unreadable images met since the run began.
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

    @property
    def eval_loss(self) -> float | None:
        return self.metrics.get("eval_loss")

    @property
    def top1(self) -> float | None:
        return self.metrics.get("top1")

    @property
    def top5(self) -> float | None:
        return self.metrics.get("top5")

    def plain(self) -> dict[str, Any]:
        """As a dictionary of plain types."""
        return asdict(self)


@dataclass(frozen=True)
class FitResult:
    """The outcome of a run.

    Attributes:
        history: one record per epoch.
        best: name of the metric that chooses the best epoch, e.g. ``top1``.
        train_images: examples of an epoch.
        checkpoint: the last checkpoint, if the run had an output folder.
    """

    history: list[EpochRecord]
    best: str
    train_images: int
    checkpoint: Path | None = None

    @property
    def top1(self) -> float:
        """Of the last epoch, as a fraction of 1."""
        return self.history[-1].metrics["top1"]

    @property
    def best_top1(self) -> float:
        """The highest of all epochs, as a fraction of 1."""
        return max(record.metrics["top1"] for record in self.history if "top1" in record.metrics)

    @property
    def train_seconds_per_image(self) -> float:
        """Mean duration of training, loading included. The first epoch warms up and is left out if there are more."""
        measured = self.history[1:] or self.history
        return sum(record.train_seconds for record in measured) / (len(measured) * self.train_images)
