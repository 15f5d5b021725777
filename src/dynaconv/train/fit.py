"""``fit``: train a model on data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..data import ImageData
from ..routing import TemperatureSchedule
from .accelerator import make_accelerator, release, torch_switches
from .classification import Classification
from .loop import Loop
from .optimizer import build_optimizer, build_schedule
from .progress import Progress, Silent
from .record import EpochRecord, FitResult
from .settings import TrainSettings
from .signals import StopSignals
from .state import TrainState
from .task import Task


def fit(
    model: nn.Module,
    data: ImageData,
    settings: TrainSettings,
    *,
    task: Task | None = None,
    out: Path | None = None,
    resume: str = "never",
    progress: Progress | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> FitResult:
    """Train ``model`` in place.

    Seeds the global random generators with ``settings.seed``. Training order and augmentation follow ``data.seed``.

    Args:
        model: the network; ``(B, 3, S, S)`` to ``(B, classes)`` for classification.
        data: from ``open_data``.
        settings: everything else.
        task: what is trained for; classification of ``data.classes`` if ``None``.
        out: folder for checkpoints, logs and weights; nothing is written without one.
        resume: ``auto`` goes on from the last whole checkpoint in ``out`` (and starts if there is none); ``never`` refuses
            a folder with checkpoints.
        progress: told of every step.
        on_epoch: called with every epoch's record.
    """
    from accelerate.utils import set_seed

    accelerator = make_accelerator(settings)
    set_seed(settings.seed, device_specific=True)
    if task is None:
        task = Classification(len(data.classes), settings, data.batch_size // accelerator.num_processes)
    with torch_switches(settings):
        try:
            loop = _build(model, data, settings, task, accelerator, progress or Silent(), on_epoch)
            loop.run()
            return FitResult(loop.state.history, task.best, data.train_size)
        finally:
            release(accelerator, model)


def _build(
    model: nn.Module,
    data: ImageData,
    settings: TrainSettings,
    task: Task,
    accelerator: Any,
    progress: Progress,
    on_epoch: Callable[[EpochRecord], None] | None,
) -> Loop:
    steps = len(data.training_batches(settings.augment, processes=accelerator.num_processes))
    model.to(accelerator.device)
    if settings.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema = _averaged(model, settings)
    optimizer = build_optimizer(model, settings)
    state = TrainState(
        model,
        optimizer,
        build_schedule(optimizer, settings, steps),
        _temperature(model, settings, steps),
        ema,
        None if ema is None else _temperature(ema.module, settings, steps),
        accelerator.scaler,
    )
    if settings.compile:
        model.compile()
    prepared, wrapped = accelerator.prepare(model, optimizer)
    return Loop(
        state,
        prepared,
        wrapped,
        accelerator,
        task,
        data,
        settings,
        progress,
        StopSignals(),
        lambda best: None,
        on_epoch or (lambda record: None),
        lambda step, values: None,
    )


def _averaged(model: nn.Module, settings: TrainSettings) -> Any:
    if settings.ema is None:
        return None
    from timm.utils import ModelEmaV3

    return ModelEmaV3(model, decay=settings.ema, use_warmup=settings.ema_warmup)


def _temperature(model: nn.Module, settings: TrainSettings, steps_per_epoch: int) -> TemperatureSchedule:
    return TemperatureSchedule(
        model,
        settings.temperature_start,
        settings.temperature_end,
        settings.temperature_epochs,
        steps_per_epoch if settings.temperature_per == "step" else None,
    )
