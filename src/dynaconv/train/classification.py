"""Image classification: cross-entropy, top-1 and top-5."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dynaconv.errors import UserError
from dynaconv.train.settings import TrainSettings

Batch = tuple[Tensor, Tensor]  # images (B, C, H, W); labels (B,) int64, or (B, classes) when mixed


class Classification:
    """``loss = CE(model(images), labels)`` in float32 under any autocast; mixup and label smoothing as in timm.

    Args:
        classes: number of classes.
        settings: label smoothing, mixup, memory format; ``None`` to evaluate only.
        batch_size: examples per process, which mixup wants even.
    """

    best = "top1"

    def __init__(self, classes: int, settings: TrainSettings | None = None, batch_size: int = 2) -> None:
        self.classes = classes
        self._smoothing = settings.label_smoothing if settings else 0.0
        self._format = torch.channels_last if settings and settings.channels_last else torch.contiguous_format
        self._mix = _mixup(settings, classes, batch_size) if settings else None

    def prepare(self, batch: Batch) -> Batch:
        return batch if self._mix is None else self._mix(*batch)

    def split(self, batch: Batch, parts: int) -> Sequence[Batch]:
        if parts == 1:
            return [batch]
        images, labels = batch
        return list(zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True))

    def size(self, batch: Batch) -> int:
        return len(batch[0])

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        images, labels = batch
        # mixed labels have been smoothed by timm's Mixup
        smoothing = 0.0 if labels.is_floating_point() else self._smoothing
        logits = model(images.contiguous(memory_format=self._format))
        return F.cross_entropy(logits.float(), labels, label_smoothing=smoothing)

    def metrics(self, device: Any) -> ClassificationMetrics:
        return ClassificationMetrics(self.classes, device, self._format)


class ClassificationMetrics:
    """``eval_loss``, ``top1`` and ``top5`` (always 1 with five classes or fewer) over the examples of all processes."""

    def __init__(self, classes: int, device: Any, memory_format: torch.memory_format) -> None:
        from torchmetrics import MeanMetric
        from torchmetrics.classification import MulticlassAccuracy

        self._format = memory_format
        self._loss = MeanMetric(nan_strategy="disable").to(device)
        # micro: every example counts the same; torchmetrics' default averages over classes
        self._top1 = MulticlassAccuracy(classes, average="micro", validate_args=False).to(device)
        self._top5 = MulticlassAccuracy(classes, top_k=min(5, classes), average="micro", validate_args=False).to(device)

    def update(self, model: nn.Module, batch: Batch) -> None:
        images, labels = batch
        logits = model(images.contiguous(memory_format=self._format)).float()
        self._loss.update(F.cross_entropy(logits, labels, reduction="none"))
        self._top1.update(logits, labels)
        self._top5.update(logits, labels)

    def compute(self) -> dict[str, float]:
        return {
            "eval_loss": float(self._loss.compute()),
            "top1": float(self._top1.compute()),
            "top5": float(self._top5.compute()),
        }


def _mixup(settings: TrainSettings, classes: int, batch_size: int) -> Any:
    if not settings.mixup and not settings.cutmix:
        return None
    if batch_size % 2:
        raise UserError(f"mixup and cutmix mix pairs: expected an even batch per process, got {batch_size}")
    from timm.data import Mixup

    return Mixup(
        mixup_alpha=settings.mixup,
        cutmix_alpha=settings.cutmix,
        prob=settings.mixup_prob,
        label_smoothing=settings.label_smoothing,
        num_classes=classes,
    )
