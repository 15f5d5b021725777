"""What the loop needs to know about a task. Classification is one; detection and keypoints are others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor, nn

Batch = Any


class Metrics(Protocol):
    """Gathers an evaluation; over all processes when computed."""

    def update(self, model: nn.Module, batch: Batch) -> None: ...

    def compute(self) -> dict[str, float]: ...


class Task(Protocol):
    """Loss, metrics, and how to handle a batch."""

    best: str
    """The metric that chooses the best epoch; higher is better."""

    def prepare(self, batch: Batch) -> Batch:
        """Once per training batch, before it is split: whatever mixes its examples."""
        ...

    def split(self, batch: Batch, parts: int) -> Sequence[Batch]:
        """Cut a batch for gradient accumulation."""
        ...

    def size(self, batch: Batch) -> int:
        """Examples in a batch."""
        ...

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean loss over the batch's examples, a float32 scalar."""
        ...

    def metrics(self, device: Any) -> Metrics:
        """Empty metrics for one evaluation."""
        ...
