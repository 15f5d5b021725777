"""How fast data comes and how fast a step goes: which of the two a run would wait for."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any, cast

import torch
from PIL import Image
from torch import nn

from dynaconv.data import ImageData
from dynaconv.data.folder import Folder
from dynaconv.data.source import Source
from dynaconv.train.accelerator import make_accelerator
from dynaconv.train.classification import Classification
from dynaconv.train.optimizer import build_optimizer
from dynaconv.train.settings import TrainSettings

SECONDS = 10.0


def profile(model: nn.Module, data: ImageData, settings: TrainSettings, seconds: float = SECONDS) -> Iterator[str]:
    """Lines with images/s of our loader, of timm's own on the same files, and of the bare training step.

    Each is measured for about ``seconds``, after its first batch (workers start, kernels are chosen).
    """
    accelerator = make_accelerator(settings)
    yield f"{data.description}; batch {data.batch_size}, {data.workers} workers, {accelerator.device}"
    batches = data.training_batches(settings.augment, device=accelerator.device)
    yield f"loader:        {images_per_second(_epochs(batches), seconds, accelerator):8,.0f} images/s"
    batches.close()
    timm_loader = timms_loader(data, settings, accelerator.device)
    yield f"timm's loader: {images_per_second(_epochs(timm_loader), seconds, accelerator):8,.0f} images/s"
    batch = next(iter(data.training_batches(settings.augment, device=accelerator.device)))
    model.to(accelerator.device)
    steps = bare_steps(model, batch, data, settings, accelerator)
    yield f"step alone:    {images_per_second(steps, seconds, accelerator):8,.0f} images/s"


def images_per_second(batches: Iterable[Any], seconds: float, accelerator: Any) -> float:
    """Examples in ``batches`` by the time they take, after the first batch."""
    iterator = iter(batches)
    next(iterator)
    _finish(accelerator)
    began = time.perf_counter()
    images = 0
    for batch in iterator:
        images += len(batch[0])
        if time.perf_counter() - began > seconds:
            break
    _finish(accelerator)
    return images / (time.perf_counter() - began)


def bare_steps(
    model: nn.Module, batch: Any, data: ImageData, settings: TrainSettings, accelerator: Any
) -> Iterator[Any]:
    """Model, loss, backward, optimizer on one batch, for ever; nothing of the loop."""
    task = Classification(len(data.classes), settings, len(batch[0]))
    optimizer = build_optimizer(model, settings)
    model.train()
    while True:
        with accelerator.autocast():
            loss = task.loss(model, task.prepare((batch[0].clone(), batch[1])))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield batch


def timms_loader(data: ImageData, settings: TrainSettings, device: torch.device) -> Any:
    """timm's ``create_loader`` with the same transforms, workers and batch."""
    from timm.data import create_loader

    augment = data.resolve(settings.augment)
    return create_loader(
        cast(Any, _AsTimmReads(data.training_source)),
        (3, data.image_size, data.image_size),
        data.batch_size,
        is_training=True,
        scale=augment.scale,
        ratio=augment.ratio,
        hflip=augment.hflip or 0.0,
        color_jitter=augment.color_jitter,
        auto_augment=augment.auto_augment,
        re_prob=augment.random_erasing,
        re_mode="pixel",
        interpolation=augment.interpolation,
        mean=data.preprocess.mean,
        std=data.preprocess.std,
        num_workers=data.workers,
        persistent_workers=data.workers > 0,
        device=device,
    )


class _AsTimmReads(torch.utils.data.Dataset[Any]):
    """Files opened as timm's ImageDataset opens them; what is no file, as our source has it."""

    def __init__(self, source: Source) -> None:
        self.source, self.transform = source, None

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Any:
        if isinstance(self.source, Folder):
            image = Image.open(self.source.paths[index]).convert("RGB")
        else:
            image = self.source.image(index)
        return (image if self.transform is None else self.transform(image)), self.source.labels[index]


def _epochs(batches: Any) -> Iterator[Any]:
    while True:
        yield from batches


def _finish(accelerator: Any) -> None:
    if accelerator.device.type != "cpu":
        torch.get_device_module(accelerator.device).synchronize()
