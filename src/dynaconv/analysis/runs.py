"""One training run of an experiment: its data, its training, its result."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dynaconv.analysis.arms import Arm
from dynaconv.analysis.settings import CLASSIFICATION, ExperimentSettings
from dynaconv.errors import RunError
from dynaconv.tasks import task_class
from dynaconv.tasks.task import TaskData
from dynaconv.train import Stopped, fit
from dynaconv.train.accelerator import make_accelerator
from dynaconv.train.progress import Progress
from dynaconv.train.records import FitResult
from dynaconv.train.run_folder.folder import CHECKPOINTS
from dynaconv.train.run_folder.weights import LAST, read_weights

BEGINNING = "beginning"  # inside a run's folder: the run of the arm that it begins from


@dataclass(frozen=True)
class RunResult:
    """The result of one run.

    Attributes:
        method, experts, seed: which run.
        value: the task's metric after the last epoch (never the best epoch's: that would be chosen on the test images);
            a share in percent.
        curve: that metric after every evaluated epoch, with the epoch's number, counted from 1.
        train_loss: mean over each epoch.
        seconds_per_image: of training in this run, loading included; not paired with the other networks'.
        dropped_steps: steps whose gradients were not finite.
        temperature: of the softmax routers at the last evaluation.
        routing_entropy: mean over the routers at the last evaluation, as a share of log K.
        correct: for every test image, whether the network was right: bits, as hexadecimal; ``None`` where the metric is
            no mean over images.
        test_images: how many examples the network is evaluated on.
        metric: the name of the task's metric; ``value`` has this name in files.
        metrics: all of the task's metrics after the last epoch, as the run's own log has them (shares of 1).
    """

    method: str
    experts: int | None
    seed: int
    value: float
    curve: list[tuple[int, float]]
    train_loss: list[float]
    seconds_per_image: float
    dropped_steps: int
    temperature: float | None
    routing_entropy: float | None
    correct: str | None
    test_images: int
    metric: str = "top1"
    metrics: dict[str, float] = field(default_factory=dict)

    def correctness(self) -> list[int] | None:
        """``correct`` as zeros and ones."""
        if self.correct is None:
            return None
        packed = np.frombuffer(bytes.fromhex(self.correct), dtype=np.uint8)
        bits: list[int] = np.unpackbits(packed, count=self.test_images).tolist()
        return bits

    def plain(self) -> dict[str, Any]:
        """As a dictionary of plain types; ``value`` is called by the metric's name."""
        return {self.metric if name == "value" else name: value for name, value in asdict(self).items()}

    @classmethod
    def of(cls, plain: dict[str, Any]) -> RunResult:
        """Back from :meth:`plain`, through JSON or not."""
        metric = plain.get("metric", "top1")
        rest = {name: value for name, value in plain.items() if name != metric}
        curve = [(int(epoch), float(value)) for epoch, value in plain["curve"]]
        return cls(**{**rest, "value": plain[metric], "curve": curve})


def run_one(
    arm: Arm, seed: int, settings: ExperimentSettings, folder: Path, progress: Progress | None = None
) -> RunResult:
    """Train one arm with one seed in ``folder``, or go on with it from its last checkpoint.

    Raises:
        RunError: it was asked to stop, or cannot go on; the same command goes on from its last checkpoint.
    """
    data = open_for(settings, seed)
    if arm.begins_from is None:
        network = arm.build(settings, data, seed)
    else:
        trained = arm.begins_from.build(settings, data, seed)
        _fit(trained, arm.begins_from, seed, settings, data, folder / BEGINNING, progress)
        network = arm.upgrade(trained, data, seed)
    fitted = _fit(network, arm, seed, settings, data, folder, progress)
    last = fitted.history[-1]
    metric = settings.metric
    scale = 100 if metric.percent else 1
    correct = correctness(network, data, settings)
    entropies = list(last.routing_entropy.values())
    return RunResult(
        method=arm.method,
        experts=arm.experts,
        seed=seed,
        value=scale * (last.metrics[metric.name] if correct is None else sum(correct) / len(correct)),
        curve=[(record.epoch + 1, scale * record.metrics[metric.name]) for record in fitted.history if record.metrics],
        train_loss=[record.train_loss for record in fitted.history],
        seconds_per_image=fitted.train_seconds_per_image,
        dropped_steps=sum(record.dropped_steps for record in fitted.history),
        temperature=last.temperature,
        routing_entropy=sum(entropies) / len(entropies) if entropies else None,
        correct=None if correct is None else np.packbits(correct).tobytes().hex(),
        test_images=data.eval_size if correct is None else len(correct),
        metric=metric.name,
        metrics=dict(last.metrics),
    )


def _fit(
    network: nn.Module,
    arm: Arm,
    seed: int,
    settings: ExperimentSettings,
    data: TaskData,
    folder: Path,
    progress: Progress | None,
) -> FitResult:
    """Train in place; the network has the weights of the last epoch then."""
    quiet = {"keep": 1, "curves": False, "tensorboard": False, "wandb": False}  # the experiment draws its own picture
    training = arm.recipe(settings, seed).model_copy(update=quiet)
    about = {"model": arm.model.model_dump(mode="json")}
    try:
        fitted = fit(network, data, training, out=folder, resume="auto", progress=progress, about=about)
    except Stopped as stopped:
        raise _stopped(stopped, arm, seed) from stopped
    network.load_state_dict(read_weights(folder / LAST)[0])
    return fitted


def forget_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of a finished run; its weights are kept."""
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    shutil.rmtree(folder / BEGINNING, ignore_errors=True)


def correctness(network: nn.Module, data: TaskData, settings: ExperimentSettings) -> list[int] | None:
    """For every test image, in order, 1 if ``network`` is right and 0 if not; ``None`` where a task does not say."""
    accelerator = make_accelerator(settings.training)
    task = data.task(settings.training, data.batch_size)
    batches = data.evaluation_batches(device=accelerator.device)
    network.to(accelerator.device).eval()
    found = []
    try:
        with torch.no_grad(), accelerator.autocast():
            for batch in batches:
                right = task.correctness(network, batch)
                if right is None:
                    return None
                found.append(right.cpu())
    finally:
        batches.close()
    return torch.cat(found).int().tolist()


def _stopped(stopped: Stopped, arm: Arm, seed: int) -> RunError:
    error = RunError(
        f"Stopped in the run of {arm.label} with seed {seed}, after a checkpoint. The same command goes on there."
    )
    error.exit_code = stopped.exit_code
    return error


def open_for(settings: ExperimentSettings, seed: int) -> TaskData:
    """Open the experiment's data for one seed; small pictures to classify are kept in memory.

    Raises:
        UserError: as the task's ``open_data``, which also says which of these options it does not have.
    """
    data: TaskData = task_class(settings.task).open_data(
        settings.data,
        image_size=settings.image_size,
        batch_size=settings.batch_size,
        workers=settings.workers,
        bad_images=settings.bad_images,
        train_split=settings.train_split,
        eval_split=settings.eval_split,
        seed=seed,
        **settings.data_args,
        # what some tasks do not have, where it was chosen
        crop_pct=settings.crop_pct,
        interpolation=settings.interpolation,
        root=settings.data_root,
        download=settings.download or None,
        train_images=settings.train_images,
        keep_pictures=True if settings.task == CLASSIFICATION else None,
    )
    return data
