"""One training run of a comparison: its data, its training, its result."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dynaconv.analysis.settings import CompareSettings
from dynaconv.analysis.variants import Variant
from dynaconv.errors import RunError, UserError
from dynaconv.tasks.classification import Augment, ImageData, open_data
from dynaconv.tasks.classification.source import Source, Splits, Subset
from dynaconv.tasks.classification.task import Batch, Classification
from dynaconv.train import Stopped, fit
from dynaconv.train.accelerator import make_accelerator
from dynaconv.train.evaluation import evaluate
from dynaconv.train.progress import Progress
from dynaconv.train.run_folder.folder import CHECKPOINTS
from dynaconv.train.run_folder.weights import LAST, read_weights


@dataclass(frozen=True)
class RunResult:
    """The result of one run.

    Attributes:
        method, experts, seed: which run.
        top1: in percent, after the last epoch (never the best epoch's: that would be chosen on the test images).
        curve: top-1 in percent after every evaluated epoch, with the epoch's number, counted from 1.
        train_loss: mean over each epoch.
        seconds_per_image: of training in this run, loading included; not paired with the other networks'.
        dropped_steps: steps whose gradients were not finite.
        temperature: of the softmax routers at the last evaluation.
        routing_entropy: mean over the routers at the last evaluation, as a share of log K.
        correct: for every test image, whether it was classified rightly: bits, as hexadecimal.
        test_images: how many they are.
    """

    method: str
    experts: int | None
    seed: int
    top1: float
    curve: list[tuple[int, float]]
    train_loss: list[float]
    seconds_per_image: float
    dropped_steps: int
    temperature: float | None
    routing_entropy: float | None
    correct: str
    test_images: int

    def correctness(self) -> list[int]:
        """``correct`` as zeros and ones."""
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(self.correct), dtype=np.uint8), count=self.test_images)
        return [int(bit) for bit in bits]

    def plain(self) -> dict[str, Any]:
        """As a dictionary of plain types."""
        return asdict(self)

    @classmethod
    def of(cls, plain: dict[str, Any]) -> RunResult:
        """Back from :meth:`plain`, through JSON or not."""
        return cls(**{**plain, "curve": [(int(epoch), float(top1)) for epoch, top1 in plain["curve"]]})


def run_one(
    variant: Variant, seed: int, settings: CompareSettings, folder: Path, progress: Progress | None = None
) -> RunResult:
    """Train one network with one seed in ``folder``, or go on with it from its last checkpoint.

    Raises:
        RunError: it was asked to stop, or cannot go on; the same command goes on from its last checkpoint.
    """
    data = open_for(settings, seed)
    network = variant.build(settings, data, seed)
    quiet = {"keep": 1, "curves": False, "tensorboard": False, "wandb": False}  # the comparison draws its own picture
    training = settings.training.model_copy(update={"seed": seed, **quiet})
    spec = variant.spec(settings).model_dump(mode="json")
    try:
        fitted = fit(network, data, training, out=folder, resume="auto", progress=progress, about={"model": spec})
    except Stopped as stopped:
        raise _stopped(stopped, variant, seed) from stopped
    network.load_state_dict(read_weights(folder / LAST)[0])
    last = fitted.history[-1]
    correct = classified_rightly(network, data, settings)
    entropies = list(last.routing_entropy.values())
    return RunResult(
        method=variant.method,
        experts=variant.experts,
        seed=seed,
        top1=100 * sum(correct) / len(correct),
        curve=[(record.epoch + 1, 100 * record.metrics["top1"]) for record in fitted.history if record.metrics],
        train_loss=[record.train_loss for record in fitted.history],
        seconds_per_image=fitted.train_seconds_per_image,
        dropped_steps=sum(record.dropped_steps for record in fitted.history),
        temperature=last.temperature,
        routing_entropy=sum(entropies) / len(entropies) if entropies else None,
        correct=np.packbits(correct).tobytes().hex(),
        test_images=len(correct),
    )


def forget_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of a finished run; its weights are kept."""
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)


def classified_rightly(network: nn.Module, data: ImageData, settings: CompareSettings) -> list[int]:
    """For every test image, in order, 1 if ``network`` classifies it rightly and 0 if not."""
    accelerator = make_accelerator(settings.training)
    batches = data.evaluation_batches(device=accelerator.device)
    task = _Remembering(len(data.classes), settings.training)
    try:
        evaluate(network.to(accelerator.device), batches, task, accelerator)
    finally:
        batches.close()
    return torch.cat(task.correct).int().tolist()


class _Remembering(Classification):
    """Classification with metrics that record which images were classified correctly."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.correct: list[Tensor] = []

    def metrics(self, device: Any) -> Any:
        return self

    def update(self, model: nn.Module, batch: Batch) -> None:
        images, labels = batch
        logits = model(images.contiguous(memory_format=self._format))
        self.correct.append((logits.argmax(dim=1) == labels).cpu())

    def compute(self) -> dict[str, float]:
        return {}


def _stopped(stopped: Stopped, variant: Variant, seed: int) -> RunError:
    error = RunError(
        f"Stopped in the run of {variant.label} with seed {seed}, after a checkpoint. The same command goes on there."
    )
    error.exit_code = stopped.exit_code
    return error


def open_for(settings: CompareSettings, seed: int) -> ImageData:
    """Open the comparison's data for one seed.

    Raises:
        UserError: as :func:`~dynaconv.data.open_data`; or ``train_images`` is out of range.
    """
    data = open_data(
        settings.data,
        image_size=settings.image_size,
        crop_pct=settings.crop_pct,
        interpolation=settings.interpolation,
        batch_size=settings.batch_size,
        workers=settings.workers,
        bad_images=settings.bad_images,
        root=settings.data_root,
        train_split=settings.train_split,
        eval_split=settings.eval_split,
        download=settings.download,
        seed=seed,
    )
    return data if settings.train_images is None else _smaller(data, settings.train_images)


def _smaller(data: ImageData, size: int) -> ImageData:
    """The same data with fewer training images."""
    if not len(data.classes) <= size <= data.train_size:
        raise UserError(
            f"--train-images is {size}; expected {len(data.classes)} (one for every class) to {data.train_size}, which "
            f"is all of {data.name}."
        )
    natural = data.resolve(Augment())
    assert natural.crop is not None
    assert natural.hflip is not None
    splits = Splits(
        Subset(data.training_source, stratified_rows(data.training_source, size)),
        data.evaluation_source,
        data.classes,
        description=f"{size:,} of the {data.train_size:,} training images of {data.name}",
        crop=natural.crop,
        hflip=natural.hflip,
    )
    return ImageData(
        splits,
        data.preprocess,
        name=data.name,
        batch_size=data.batch_size,
        eval_batch_size=data.eval_batch_size,
        workers=data.workers,
        seed=data.seed,
        bad_images=data.bad_images.policy,
        max_bad_images=data.bad_images.cap,
        loader_timeout=data.loader_timeout,
    )


def stratified_rows(source: Source, size: int, seed: int = 0) -> list[int]:
    """``size`` rows, the classes in the same shares as in the whole; always the same ones.

    Each class's rows are shuffled and spread evenly over [0, 1); the rows with the smallest positions are taken.
    """
    labels = np.asarray(source.labels)
    random = np.random.default_rng(seed)
    position = np.empty(len(labels))
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        position[rows] = np.arange(len(rows)) / len(rows)
    return sorted(int(row) for row in np.argsort(position, kind="stable")[:size])
