"""The speed of the data loader and of the training step: the slower one limits a run."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from dynaconv.tasks.task import Task, TaskData, cloned
from dynaconv.train.accelerator import make_accelerator
from dynaconv.train.layout import with_layout
from dynaconv.train.optimizer import build_optimizer
from dynaconv.train.settings import LoopSettings

SECONDS = 10.0


def profile(model: nn.Module, data: TaskData, settings: LoopSettings, seconds: float = SECONDS) -> Iterator[str]:
    """Lines with images/s of our loader, of another project's on the same data, and of the bare training step.

    Each is measured for about ``seconds``, after its first batch (workers start, kernels are chosen).
    """
    accelerator = make_accelerator(settings)
    settings = with_layout(settings, accelerator.device, model)
    task = data.task(settings, data.batch_size)
    yield f"{data.description}; batch {data.batch_size}, {data.workers} workers, {accelerator.device}"
    batches = data.training_batches(settings, device=accelerator.device)
    yield _line("loader", _epochs(batches), task, seconds, accelerator)
    batches.close()
    batch = next(iter(batches))
    batches.close()
    other = data.other_loader(settings, accelerator.device)
    if other is not None:
        yield _line(other[0], _epochs(other[1]), task, seconds, accelerator)
    model.to(accelerator.device)
    if settings.channels_last:
        model.to(memory_format=torch.channels_last)
    yield _line("step alone", bare_steps(model, batch, task, settings, accelerator), task, seconds, accelerator)


def _line(what: str, batches: Iterable[Any], task: Task, seconds: float, accelerator: Any) -> str:
    return f"{what + ':':14} {images_per_second(batches, task, seconds, accelerator):8,.0f} images/s"


def images_per_second(batches: Iterable[Any], task: Task, seconds: float, accelerator: Any) -> float:
    """Examples in ``batches`` by the time they take, after the first batch."""
    iterator = iter(batches)
    next(iterator)
    _finish(accelerator)
    began = time.perf_counter()
    images = 0
    for batch in iterator:
        images += task.size(batch)
        if time.perf_counter() - began > seconds:
            break
    _finish(accelerator)
    return images / (time.perf_counter() - began)


def bare_steps(model: nn.Module, batch: Any, task: Task, settings: LoopSettings, accelerator: Any) -> Iterator[Any]:
    """An endless iterator of training steps (model, loss, backward, optimizer) on one batch, without the loop."""
    optimizer = build_optimizer(model, settings)
    model.train()
    while True:
        with accelerator.autocast():
            loss = task.loss(model, task.prepare(cloned(batch)))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield batch


def _epochs(batches: Any) -> Iterator[Any]:
    while True:
        yield from batches


def _finish(accelerator: Any) -> None:
    if accelerator.device.type != "cpu":
        torch.get_device_module(accelerator.device).synchronize()
