"""``fit``: train a model on data."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dynaconv.errors import UserError, suggest
from dynaconv.kernels.cpu import keep_freed_memory
from dynaconv.routing import TemperatureSchedule
from dynaconv.tasks.task import Task, TaskData
from dynaconv.train.accelerator import left_as_it_was, make_accelerator, torch_switches
from dynaconv.train.layout import with_layout
from dynaconv.train.loop import Loop
from dynaconv.train.optimizer import build_optimizer, build_schedule
from dynaconv.train.progress import Progress, Silent
from dynaconv.train.records import EpochRecord, FitResult
from dynaconv.train.regularisation import set_expert_dropout
from dynaconv.train.run_folder.folder import RESUME, RunFolder
from dynaconv.train.run_folder.saver import Saver
from dynaconv.train.settings import LoopSettings
from dynaconv.train.signals import StopSignals
from dynaconv.train.state import TrainState


def fit(
    model: nn.Module,
    data: TaskData,
    settings: LoopSettings,
    *,
    task: Task | None = None,
    out: str | Path | None = None,
    resume: str = "never",
    progress: Progress | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    about: dict[str, Any] | None = None,
    keep_memory: bool = True,
) -> FitResult:
    """Train ``model`` in place.

    Seeds the global random generators with ``settings.seed``. Training order and augmentation follow ``data.seed``.
    Under ``torchrun`` every process calls this with the same arguments.

    Args:
        model: the network; ``(B, 3, S, S)`` to ``(B, classes)`` for classification.
        data: from a task's ``open_data``.
        settings: everything else: :class:`~dynaconv.train.settings.TrainSettings` for classification, what
            :func:`~dynaconv.train.settings.settings_class` returns for any task.
        task: loss and metrics; those of the data's own task if ``None``.
        out: folder for checkpoints, logs and weights, see :mod:`dynaconv.train.run_folder`; nothing is written
            without one. With one, SIGTERM and SIGINT end the run after the step, with a checkpoint.
        resume: ``auto`` goes on from the last whole checkpoint in ``out`` (and begins if there is none); ``never``
            refuses a folder with checkpoints.
        progress: told of every step.
        on_epoch: called with every epoch's record, after it was saved.
        about: JSON types saved with the weights, e.g. how the model was built.
        keep_memory: ask the C library to keep freed memory, for the rest of this process, as the commands do at their
            start: steps are quicker, and which strategy pays depends on it (see
            :func:`dynaconv.keep_freed_memory`). ``False`` leaves it as it is.

    Raises:
        UserError: settings, data and model do not go together; ``out`` cannot be used; the checkpoint is another run's.
        RunError: the loss stayed not finite, a worker died, the disk is full. The last checkpoint is whole.
        Stopped: by a signal, after a checkpoint was written.
    """
    from accelerate.utils import set_seed

    if resume not in RESUME:
        raise UserError(f"resume is {resume!r}; expected 'auto' or 'never'. {suggest(resume, RESUME)}")
    if keep_memory:
        keep_freed_memory()
    accelerator = make_accelerator(settings)
    settings = with_layout(settings, accelerator.device, model, None if out is None else Path(out))
    set_seed(settings.seed, device_specific=True)
    if task is None:
        # a data set smaller than a batch is one batch
        task = data.task(settings, min(data.batch_size, data.train_size) // accelerator.num_processes)
    folder = None if out is None else _folder(Path(out), task, data, settings, about or {}, resume)
    saver = Saver(folder, data, accelerator, on_epoch)
    with ExitStack() as stack:
        stack.enter_context(torch_switches(settings))
        if folder is not None and accelerator.is_main_process:
            stack.enter_context(folder.held())
        signals = StopSignals() if folder is None else stack.enter_context(StopSignals())
        stack.enter_context(left_as_it_was(model))
        stack.callback(saver.close)
        state, prepared, optimizer = _prepare(model, data, settings, accelerator)
        evaluated = model if state.ema is None else state.ema.module
        saver.begin(state, evaluated)
        loop = Loop(state, prepared, optimizer, accelerator, task, data, settings, progress or Silent(), signals, saver)
        loop.run()
        saver.finish(state, evaluated)
        return FitResult(state.history, task.best, data.train_size, saver.checkpoint, task.metrics_shown)


def _folder(
    folder: Path, task: Task, data: TaskData, settings: LoopSettings, about: dict[str, Any], resume: str
) -> RunFolder:
    of_data = data.about()
    facts = {
        "train_size": data.train_size,
        "eval_size": data.eval_size,
        "batch_size": data.batch_size,
        "data_seed": data.seed,
        **of_data,
        **data.facts(settings),
    }
    if "model" in about:
        facts["model"] = about["model"]
    known = {**about, "task": task.name, "data": data.name, **of_data}
    return RunFolder(folder, settings, known, facts, resume, task.metrics_shown)


def _prepare(
    model: nn.Module, data: TaskData, settings: LoopSettings, accelerator: Any
) -> tuple[TrainState, nn.Module, Any]:
    """The state, and model and optimizer as accelerate wraps them."""
    batches = data.training_batches(settings, processes=accelerator.num_processes)
    share = batches.whole // accelerator.num_processes
    if settings.accumulate > share:
        raise UserError(f"accumulate is {settings.accumulate}; expected at most {share}, the batch of one process")
    steps = len(batches)
    if settings.expert_dropout is not None:
        set_expert_dropout(model, settings.expert_dropout)
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


def _averaged(model: nn.Module, settings: LoopSettings) -> Any:
    if settings.ema is None:
        return None
    from timm.utils import ModelEmaV3

    return ModelEmaV3(model, decay=settings.ema, use_warmup=settings.ema_warmup)


def _temperature(model: nn.Module, settings: LoopSettings, steps_per_epoch: int) -> TemperatureSchedule:
    return TemperatureSchedule(
        model,
        settings.temperature_start,
        settings.temperature_end,
        settings.temperature_epochs,
        steps_per_epoch if settings.temperature_per == "step" else None,
        settings.temperature_schedule,
    )
