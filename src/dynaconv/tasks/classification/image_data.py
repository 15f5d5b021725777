"""``ImageData``: an opened data set, its loaders, and what is written about it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import nn

from dynaconv.data import BadImages, Batches, EvaluationBatches, TrainBatches, default_cap
from dynaconv.tasks.classification.batches import labelled_batches, timms_loader
from dynaconv.tasks.classification.kept import evaluation_on_pixels, training_on_pixels
from dynaconv.tasks.classification.source import Source, Splits, listing
from dynaconv.tasks.classification.task import Classification, ClassificationOptions
from dynaconv.tasks.classification.transforms import Augment, Preprocess, evaluation_transform, training_transform
from dynaconv.tasks.network import ModelSpec, build_model


class ImageData:
    """A data set opened for training: see :func:`~dynaconv.tasks.classification.datasets.open_data`.

    Attributes:
        classes: class names; a label is an index into them.
        channels: of the images the loaders give (3).
        image_size: height and width of those images.
        batch_size: examples of one optimizer step, over all processes.
        train_size, eval_size: examples in the two splits.
        preprocess: the preprocessing of evaluation and prediction.
        description: one line for tables and logs.
    """

    channels = 3

    def __init__(
        self,
        splits: Splits,
        preprocess: Preprocess,
        *,
        name: str,
        batch_size: int,
        eval_batch_size: int,
        workers: int,
        seed: int,
        bad_images: str,
        max_bad_images: int | None,
        loader_timeout: float,
        keep_pictures: bool = False,
    ) -> None:
        self.name, self.preprocess = name, preprocess
        self.batch_size, self.eval_batch_size, self.workers, self.seed = batch_size, eval_batch_size, workers, seed
        self.loader_timeout, self.keep_pictures = loader_timeout, keep_pictures
        self._splits = splits
        self.bad_images = BadImages(bad_images, self._cap(max_bad_images))

    @property
    def classes(self) -> list[str]:
        return self._splits.classes

    @property
    def image_size(self) -> int:
        return self.preprocess.image_size

    @property
    def train_size(self) -> int:
        return len(self._splits.train)

    @property
    def eval_size(self) -> int:
        return len(self._splits.evaluation)

    @property
    def training_source(self) -> Source:
        """The training split, undecorated."""
        return self._splits.train

    @property
    def evaluation_source(self) -> Source:
        """The evaluation split, undecorated."""
        return self._splits.evaluation

    @property
    def description(self) -> str:
        return (
            f"{self._splits.description} ({len(self.classes)} classes, {self.train_size:,} to train on, "
            f"{self.eval_size:,} to evaluate on, {self.image_size}x{self.image_size})"
        )

    @cached_property
    def train_loader(self) -> Batches:
        """Training batches with the data set's own augmentation, in one process, on the CPU."""
        return self.training_batches(Augment())

    @cached_property
    def eval_loader(self) -> Batches:
        """Evaluation batches in one process, on the CPU."""
        return self.evaluation_batches()

    def network(self, spec: ModelSpec, *, pretrained: bool = False, weights: Path | None = None) -> nn.Module:
        """The network for these classes and this image size."""
        return build_model(spec, len(self.classes), pretrained=pretrained, image_size=self.image_size, weights=weights)

    def first_picture(self) -> Image:
        """The first training picture, decoded but not transformed."""
        return self.training_source.image(0)

    def resolve(self, augment: Augment) -> Augment:
        """The augmentation, with what ``augment`` leaves to the data set filled in."""
        chosen = {name: getattr(augment, name) for name in Augment.model_fields}
        chosen["crop"] = augment.crop or self._splits.crop
        if augment.hflip is None:
            chosen["hflip"] = self._splits.hflip
        return Augment(**chosen)

    def training_batches(
        self, options: Augment, *, processes: int = 1, process: int = 0, device: torch.device | str = "cpu"
    ) -> Batches:
        """One process's share of the training batches; ``set_epoch`` chooses the epoch."""
        batches = TrainBatches(self.train_size, self.batch_size, seed=self.seed, processes=processes, process=process)
        augment = self.resolve(options)
        transform = training_transform(self.preprocess, augment)
        return labelled_batches(
            self._splits.train,
            transform,
            self.preprocess,
            batches,
            self.bad_images,
            seed=self.seed,
            workers=self.workers,
            timeout=self.loader_timeout,
            device=device,
            on_pixels=training_on_pixels(self.preprocess, augment) if self.keep_pictures else None,
        )

    def evaluation_batches(
        self, *, processes: int = 1, process: int = 0, device: torch.device | str = "cpu"
    ) -> Batches:
        """One process's share of the evaluation batches."""
        batches = EvaluationBatches(self.eval_size, self.eval_batch_size, processes=processes, process=process)
        return labelled_batches(
            self._splits.evaluation,
            evaluation_transform(self.preprocess),
            self.preprocess,
            batches,
            self.bad_images,
            seed=None,
            workers=self.workers,
            timeout=self.loader_timeout,
            device=device,
            on_pixels=evaluation_on_pixels(self.preprocess) if self.keep_pictures else None,
        )

    def task(self, options: ClassificationOptions, batch_size: int) -> Classification:
        """Classification into these classes."""
        return Classification(self.classes, options, batch_size)

    def about(self) -> dict[str, Any]:
        """Class names and preprocessing: what is needed to use weights trained on this data."""
        return {"classes": self.classes, "preprocess": self.preprocess.model_dump(mode="json")}

    def facts(self, options: Augment) -> dict[str, Any]:
        """What must be the same when a run is resumed, beside :meth:`about`."""
        return {"augment": self.resolve(options).model_dump(mode="json"), **self.listing()}

    def baseline(self) -> dict[str, float]:
        """``top1`` of always naming the class that is the most frequent one in training."""
        frequent = np.bincount(np.asarray(self.training_source.labels)).argmax()
        return {"top1": float(np.mean(np.asarray(self.evaluation_source.labels) == frequent))}

    def listing(self) -> dict[str, str]:
        """For every split and class a digest of its pictures' names and sizes, see :func:`listing`."""
        return {f"images of {name}": line for name, line in listing(self._splits).items()}

    def other_loader(self, options: Augment, device: torch.device) -> tuple[str, Iterable[Any]]:
        """timm's loader over the same pictures, to compare speeds with."""
        augment = self.resolve(options)
        return "timm's loader", timms_loader(
            self.training_source, self.preprocess, augment, self.batch_size, self.workers, device
        )

    def _cap(self, cap: int | None) -> int:
        return default_cap(self.train_size + self.eval_size) if cap is None else cap
