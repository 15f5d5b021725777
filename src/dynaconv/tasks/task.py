"""The interface of a task for training, the run folder, profiling and prediction.

Made for three tasks. The task defines what a batch is: stacked images with labels (classification), a list of images
of different sizes with boxes (detection), crops of persons with heat maps (keypoints). Some metrics need the whole
evaluation set of all processes (COCO's average precision, OKS); :meth:`Metrics.compute` is for these.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from dynaconv.data import BadImages, Batches, Frozen

if TYPE_CHECKING:
    from PIL.Image import Image

    from dynaconv.tasks.network import ModelSpec

Batch = Any


class TaskOptions(Frozen):
    """The options that all tasks have; the options of a task inherit from this class.

    Attributes:
        channels_last: give images to the network in that memory format; ``None``: where it is the faster one, see
            :func:`dynaconv.train.layout.with_layout`.
    """

    channels_last: bool | None = None


@dataclass(frozen=True)
class Metric:
    """A metric of the evaluation, and how it is shown.

    Attributes:
        name: in records, logs and JSON, e.g. ``top1``.
        label: for people, e.g. ``top-1``.
        percent: a fraction of 1 that is shown in percent.
        higher_is_better: the direction in which it improves.
    """

    name: str
    label: str
    percent: bool = False
    higher_is_better: bool = True

    @property
    def heading(self) -> str:
        """The label with the unit, for a table's column or an axis.

        >>> Metric("top1", "top-1", percent=True).heading
        'top-1, %'
        """
        return f"{self.label}, %" if self.percent else self.label

    def text(self, value: float) -> str:
        """The value for people, with its unit.

        >>> Metric("top1", "top-1", percent=True).text(0.5)
        '50.00 %'
        """
        return f"{100 * value:.2f} %" if self.percent else f"{value:.4f}"

    def better(self, new: float, old: float) -> bool:
        """Whether ``new`` improves on ``old``; NaN improves on nothing."""
        return new > old if self.higher_is_better else new < old


class Metrics(Protocol):
    """Collects the figures of one evaluation."""

    def update(self, model: nn.Module, batch: Batch) -> None:
        """Run ``model`` (in evaluation mode, without gradients) on a batch and record what the metrics need."""
        ...

    def compute(self) -> dict[str, float]:
        """The metrics by name, over the examples of all processes. Called by every process; all get the same values."""
        ...


class Task(Protocol):
    """Loss, metrics, and how to handle a batch; made by :meth:`TaskData.task` or :meth:`of_weights`."""

    name: str
    """As in :data:`dynaconv.tasks.TASKS`; saved with weights."""

    options: type[TaskOptions]
    """The class of the task's options."""

    metrics_shown: tuple[Metric, ...]
    """Every metric that :meth:`Metrics.compute` returns, in the order in which they are shown."""

    best: str
    """The name of the metric that chooses the best epoch."""

    predictions_key: str
    """What the predictions of an image are called in JSON, e.g. ``classes``."""

    @classmethod
    def of_weights(cls, about: dict[str, Any], options: Any = None) -> tuple[Task, nn.Module]:
        """The task for evaluation and the network, without its weights, from what :meth:`TaskData.about` saved with
        them (and ``about["model"]``, the :class:`~dynaconv.tasks.network.ModelSpec`).

        Args:
            options: the task's, for the memory format.

        Raises:
            UserError: something that is needed is not in ``about``.
        """
        ...

    @classmethod
    def open_data(cls, name: str, *_: Any, **opening: Any) -> TaskData:
        """Open a data set by name to train on it.

        Args:
            opening: ``image_size``, ``batch_size``, ``workers``, ``seed``, ``bad_images``, ``max_bad_images``, and what
                is the task's own.

        Raises:
            UserError: there is no such data, or it cannot be used.
        """
        ...

    def prepare(self, batch: Batch) -> Batch:
        """Called once per training batch, before it is split, to mix its examples. May change the batch in place."""
        ...

    def split(self, batch: Batch, parts: int) -> Sequence[Batch]:
        """Cut a batch for gradient accumulation; never an empty part."""
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

    def inputs(self, batch: Batch) -> Any:
        """What the network takes in evaluation: ``model(task.inputs(batch))``."""
        ...

    def correctness(self, model: nn.Module, batch: Batch) -> Tensor | None:
        """For every example 1 or 0, of which :attr:`best` is the mean; ``None`` where it is no such mean."""
        ...

    def labelled_batches(self, name: str, *_: Any, **reading: Any) -> Batches:
        """One process's share of the evaluation split of a data set, for a task made by :meth:`of_weights`.

        Args:
            reading: ``batch_size``, ``workers``, ``bad_images``, ``max_bad_images``, ``processes``, ``process``,
                ``device``, and what is the task's own.

        Raises:
            UserError: there is no such data, or the network was not trained for its labels.
        """
        ...

    def file_batches(self, paths: Sequence[Path], *_: Any, **reading: Any) -> Batches:
        """Image files as evaluation sees them, for a task made by :meth:`of_weights`.

        Every batch is a pair: for every example the number of its file in ``paths`` (a file may have several examples;
        one that cannot be read has none), and what :meth:`predict` takes.

        Args:
            reading: ``batch_size``, ``workers``, ``bad_images``, ``device``, and what is the task's own.
        """
        ...

    def example(self, picture: Image) -> Any:
        """A decoded picture as evaluation sees it, on the CPU: one example, for a task made by :meth:`of_weights`.

        Several threads may call it at once.

        Raises:
            BadImage: the picture cannot be brought to the network's size.
        """
        ...

    def batch(self, examples: Sequence[Any], device: torch.device) -> Batch:
        """What :meth:`predict` takes, of examples that :meth:`example` made."""
        ...

    def predict(self, model: nn.Module, batch: Batch) -> list[list[Any]]:
        """What ``model`` finds in every example of a batch, in JSON types: a list of classes, boxes, poses ...

        What it finds in a file is all that it finds in the file's examples. Options of the task's own may follow.
        """
        ...

    def table(self, found: Sequence[list[Any]]) -> tuple[list[str], list[list[list[Any]]]]:
        """The predictions of files as a table: the names of its columns, and for every file its rows of cells."""
        ...

    def draw(self, picture: Image, prediction: Any) -> Image:
        """A copy of ``picture`` with what was found in it drawn on it."""
        ...


class TaskData(Protocol):
    """A data set opened for one task; ``options`` are that task's, :attr:`Task.options` or settings that inherit it."""

    name: str
    batch_size: int
    """Examples of one optimizer step, over all processes."""
    workers: int
    seed: int
    bad_images: BadImages

    @property
    def description(self) -> str:
        """One line for tables and logs."""
        ...

    @property
    def image_size(self) -> int | tuple[int, int]:
        """Side of the square that the network sees, or its height and width."""
        ...

    @property
    def train_size(self) -> int: ...

    @property
    def eval_size(self) -> int: ...

    def network(self, spec: ModelSpec, *, pretrained: bool = False, weights: Path | None = None) -> nn.Module:
        """The network for this data.

        Args:
            pretrained: begin from its published weights.
            weights: begin from a local file.

        Raises:
            UserError: no such network, or it does not fit the data.
        """
        ...

    def first_picture(self) -> Image:
        """The first training picture as it is before it is scaled to the network's size; raises ``BadImage``."""
        ...

    def task(self, options: Any, batch_size: int) -> Task:
        """The task that this data is for; ``batch_size`` is one process's share."""
        ...

    def training_batches(
        self, options: Any, *, processes: int = 1, process: int = 0, device: torch.device | str = "cpu"
    ) -> Batches:
        """One process's share of the training batches."""
        ...

    def evaluation_batches(
        self, *, processes: int = 1, process: int = 0, device: torch.device | str = "cpu"
    ) -> Batches:
        """One process's share of the evaluation batches."""
        ...

    def about(self) -> dict[str, Any]:
        """What is needed to use weights trained on this data (classes, preprocessing), in JSON types."""
        ...

    def facts(self, options: Any) -> dict[str, Any]:
        """What must be the same when a run is resumed, beside :meth:`about`, in JSON types."""
        ...

    def baseline(self) -> dict[str, float]:
        """Metrics of what is best guessed without looking at the pictures: a network must beat them. Some may be
        missing, :attr:`Task.best` is there."""
        ...

    def other_loader(self, options: Any, device: torch.device) -> tuple[str, Iterable[Batch]] | None:
        """Another project's loader over the same data to compare speeds with, and its name; ``None`` if there is none.

        Its batches are as :meth:`Task.size` takes them.
        """
        ...


def cloned(batch: Batch) -> Batch:
    """A batch with tensors of its own, for a step that changes them in place."""
    if isinstance(batch, Tensor):
        return batch.clone()
    if isinstance(batch, dict):
        return {key: cloned(value) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return type(batch)(cloned(value) for value in batch)
    return batch
