"""``fit``: train a model on data."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dynaconv.data import ImageData
from dynaconv.errors import UserError, suggest
from dynaconv.routing import TemperatureSchedule
from dynaconv.train.accelerator import left_as_it_was, make_accelerator, torch_switches
from dynaconv.train.classification import Classification
from dynaconv.train.keeper import Keeper
from dynaconv.train.loop import Loop
from dynaconv.train.optimizer import build_optimizer, build_schedule
from dynaconv.train.output import RESUME, Output
from dynaconv.train.progress import Progress, Silent
from dynaconv.train.record import EpochRecord, FitResult
from dynaconv.train.settings import TrainSettings
from dynaconv.train.signals import StopSignals
from dynaconv.train.state import TrainState
from dynaconv.train.task import Task


def fit(
    model: nn.Module,
    data: ImageData,
    settings: TrainSettings,
    *,
    task: Task | None = None,
    out: str | Path | None = None,
    resume: str = "never",
    progress: Progress | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    about: dict[str, Any] | None = None,
) -> FitResult:
    """Train ``model`` in place.

    Seeds the global random generators with ``settings.seed``. Training order and augmentation follow ``data.seed``.
    Under ``torchrun`` every process calls this with the same arguments.

    Args:
        model: the network; ``(B, 3, S, S)`` to ``(B, classes)`` for classification.
        data: from ``open_data``.
        settings: everything else.
        task: what is trained for; classification of ``data.classes`` if ``None``.
        out: folder for checkpoints, logs and weights (see :class:`~dynaconv.train.output.Output`); nothing is written
            without one. With one, SIGTERM and SIGINT end the run after the step, with a checkpoint.
        resume: ``auto`` goes on from the last whole checkpoint in ``out`` (and begins if there is none); ``never``
            refuses a folder with checkpoints.
        progress: told of every step.
        on_epoch: called with every epoch's record, after it was saved.
        about: JSON types saved with the weights, e.g. how the model was built.

    Raises:
        UserError: settings, data and model do not go together; ``out`` cannot be used; the checkpoint is another run's.
        RunError: the loss stayed not finite, a worker died, the disk is full. The last checkpoint is whole.
        Stopped: by a signal, after a checkpoint was written.
    """
    from accelerate.utils import set_seed

    if resume not in RESUME:
        raise UserError(f"resume is {resume!r}; expected 'auto' or 'never'. {suggest(resume, RESUME)}")
    accelerator = make_accelerator(settings)
    set_seed(settings.seed, device_specific=True)
    if task is None:
        task = Classification(len(data.classes), settings, data.batch_size // accelerator.num_processes)
    output = None if out is None else _output(Path(out), data, settings, about or {}, resume)
    keeper = Keeper(output, data, accelerator, on_epoch)
    with ExitStack() as stack:
        stack.enter_context(torch_switches(settings))
        if output is not None and accelerator.is_main_process:
            stack.enter_context(output.held())
        signals = StopSignals() if output is None else stack.enter_context(StopSignals())
        stack.enter_context(left_as_it_was(model))
        stack.callback(keeper.close)
        state, prepared, optimizer = _prepare(model, data, settings, accelerator)
        evaluated = model if state.ema is None else state.ema.module
        keeper.begin(state, evaluated)
        loop = Loop(
            state, prepared, optimizer, accelerator, task, data, settings, progress or Silent(), signals, keeper
        )
        loop.run()
        keeper.finish(state, evaluated)
        return FitResult(state.history, task.best, data.train_size, keeper.checkpoint)


def _output(folder: Path, data: ImageData, settings: TrainSettings, about: dict[str, Any], resume: str) -> Output:
    preprocess = data.preprocess.model_dump(mode="json")
    facts = {
        "classes": data.classes,
        "train_size": data.train_size,
        "eval_size": data.eval_size,
        "batch_size": data.batch_size,
        "data_seed": data.seed,
        "preprocess": preprocess,
        "augment": data.resolve(settings.augment).model_dump(mode="json"),
    }
    if "model" in about:
        facts["model"] = about["model"]
    known = {**about, "classes": data.classes, "preprocess": preprocess, "data": data.name}
    return Output(folder, settings, known, facts, resume)


def _prepare(
    model: nn.Module, data: ImageData, settings: TrainSettings, accelerator: Any
) -> tuple[TrainState, nn.Module, Any]:
    """The state, and model and optimizer as accelerate wraps them."""
    steps = len(data.training_batches(settings.augment, processes=accelerator.num_processes))
    model.to(accelerator.device)
    if settings.channels_last:
        model.to(memory_format=torch.channels_last)
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
    return state, prepared, wrapped


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
