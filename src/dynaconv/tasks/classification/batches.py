"""Batches of labelled pictures: reader, collation, normalisation on the device; timm's loader for comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from dynaconv.data import BadImage, BadImages, Batches, EvaluationBatches, Examples, TrainBatches
from dynaconv.data.examples import Reader
from dynaconv.tasks.classification.folder import Folder
from dynaconv.tasks.classification.kept import KeptImages, OnPixels, keepable
from dynaconv.tasks.classification.source import Source
from dynaconv.tasks.classification.transforms import Augment, Preprocess, Transform


@dataclass(frozen=True)
class LabelledImages:
    """A split with its transform: ``reader[row]`` is ``(image (3, S, S), label)``."""

    source: Source
    transform: Transform

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        image = self.source.image(row)
        try:
            return self.transform(image), int(self.source.labels[row])
        except BadImage as error:
            raise BadImage(self.source.name(row), error.reason) from error


def collate(examples: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    """Shapes: images ``(B, 3, S, S)``, labels ``(B,)`` int64."""
    return default_collate([image for image, _ in examples]), torch.tensor([label for _, label in examples])


class Normalise:
    """Moves a batch to the device and computes ``(x / 255 - mean) / std`` there, from uint8 pixels to float32.

    Float32 images have been normalised by their transform already (random erasing needs that).
    """

    def __init__(self, preprocess: Preprocess) -> None:
        self._preprocess = preprocess
        self._statistics: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def __call__(self, batch: tuple[Tensor, Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
        images, labels = (tensor.to(device, non_blocking=True) for tensor in batch)
        if images.dtype == torch.uint8:
            mean, std = self._on(device)
            images = images.float().sub_(mean).div_(std)
        return images, labels

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if device not in self._statistics:
            mean, std = (
                torch.tensor([255 * value for value in values], dtype=torch.float32, device=device).view(1, -1, 1, 1)
                for values in (self._preprocess.mean, self._preprocess.std)
            )
            self._statistics[device] = mean, std
        return self._statistics[device]


def labelled_batches(
    source: Source,
    transform: Transform,
    preprocess: Preprocess,
    batches: TrainBatches | EvaluationBatches,
    bad_images: BadImages,
    *,
    seed: int | None,
    workers: int,
    timeout: float,
    device: torch.device | str,
    on_pixels: OnPixels | None = None,
) -> Batches:
    """Batches of ``(images, labels)``: ``(B, 3, S, S)`` float32, normalised, on ``device``; ``(B,)`` int64.

    With ``on_pixels`` small pictures are kept in memory (:mod:`dynaconv.tasks.classification.kept`).
    """
    reader: Reader = LabelledImages(source, transform)
    if on_pixels is not None and keepable(source, preprocess.image_size):
        reader = KeptImages(source, transform, on_pixels, preprocess.image_size)
    return Batches(
        Examples(reader, seed=seed),
        batches,
        bad_images,
        collate=collate,
        to_device=Normalise(preprocess),
        workers=workers,
        timeout=timeout,
        device=device,
    )


def timms_loader(
    source: Source, preprocess: Preprocess, augment: Augment, batch_size: int, workers: int, device: torch.device
) -> Any:
    """timm's ``create_loader`` over the same pictures with the same transforms, workers and batch."""
    from timm.data import create_loader

    return create_loader(
        cast(Any, _AsTimmReads(source)),
        (3, preprocess.image_size, preprocess.image_size),
        batch_size,
        is_training=True,
        scale=augment.scale,
        ratio=augment.ratio,
        hflip=augment.hflip or 0.0,
        color_jitter=augment.color_jitter,
        auto_augment=augment.auto_augment,
        re_prob=augment.random_erasing,
        re_mode="pixel",
        interpolation=augment.interpolation,
        mean=preprocess.mean,
        std=preprocess.std,
        num_workers=workers,
        persistent_workers=workers > 0,
        device=device,
    )


class _AsTimmReads(Dataset[Any]):
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
