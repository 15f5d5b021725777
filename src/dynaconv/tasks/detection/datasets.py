"""``open_data``: annotation files in COCO's format, opened to train a detector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import nn

from dynaconv.data import BadImages, Batches, EvaluationBatches, Examples, TrainBatches, default_cap
from dynaconv.data.coco import Coco
from dynaconv.data.coco_splits import open_coco
from dynaconv.data.opening import LARGEST_SIDE, check_opening, check_whole
from dynaconv.errors import UserError
from dynaconv.tasks.detection.baseline import mean_box_precision
from dynaconv.tasks.detection.batches import EvaluationPictures, TrainingPictures, collate, to_device
from dynaconv.tasks.detection.network import build_detector
from dynaconv.tasks.detection.task import Detection
from dynaconv.tasks.detection.transforms import DetectionOptions, training_transform
from dynaconv.tasks.network import ModelSpec, height_and_width

SIZE = 300
SMALLEST = 32


class DetectionData:
    """A data set opened for training; see :func:`open_data` and :class:`dynaconv.tasks.task.TaskData`.

    Attributes:
        train, evaluation: the two annotation files.
    """

    def __init__(
        self,
        train: Coco,
        evaluation: Coco,
        *,
        name: str,
        image_size: int,
        batch_size: int,
        eval_batch_size: int,
        workers: int,
        seed: int,
        bad_images: BadImages,
        loader_timeout: float,
    ) -> None:
        self.train, self.evaluation, self.name, self.image_size = train, evaluation, name, image_size
        self.batch_size, self.eval_batch_size, self.workers, self.seed = batch_size, eval_batch_size, workers, seed
        self.bad_images, self.loader_timeout = bad_images, loader_timeout

    @property
    def classes(self) -> list[str]:
        """Names of the categories; a label is an index into them, from 1 for the network."""
        return self.train.classes

    @property
    def train_size(self) -> int:
        return len(self.train.pictures)

    @property
    def eval_size(self) -> int:
        return len(self.evaluation.pictures)

    @property
    def description(self) -> str:
        boxes = sum(len(picture.annotations) for picture in self.train.pictures)
        return (
            f"boxes of {self.train.path.parent.name}/{self.train.path.name} ({len(self.classes)} classes, "
            f"{self.train_size:,} pictures with {boxes:,} boxes to train on, {self.eval_size:,} pictures to evaluate "
            f"on, {self.image_size}x{self.image_size})"
        )

    def network(self, spec: ModelSpec, *, pretrained: bool = False, weights: Path | None = None) -> nn.Module:
        """The detector for these classes and this image size."""
        return build_detector(spec, len(self.classes), self.image_size, pretrained=pretrained, weights=weights)

    def first_picture(self) -> Image:
        """The first training picture, as it was decoded."""
        return self.train.pictures[0].decode()

    def task(self, options: DetectionOptions, batch_size: int) -> Detection:
        """Detection of these classes."""
        return Detection(self.train.categories, self.image_size)

    def training_batches(
        self, options: DetectionOptions, *, processes: int = 1, process: int = 0, device: torch.device | str = "cpu"
    ) -> Batches:
        """One process's share of the training batches; ``set_epoch`` chooses the epoch."""
        batches = TrainBatches(self.train_size, self.batch_size, seed=self.seed, processes=processes, process=process)
        reader = TrainingPictures(self.train.pictures, training_transform(options, self.image_size))
        return self._batches(Examples(reader, seed=self.seed), batches, device)

    def evaluation_batches(
        self, *, processes: int = 1, process: int = 0, device: torch.device | str = "cpu"
    ) -> Batches:
        """One process's share of the evaluation batches."""
        batches = EvaluationBatches(self.eval_size, self.eval_batch_size, processes=processes, process=process)
        reader = EvaluationPictures(self.evaluation.pictures, self.image_size)
        return self._batches(Examples(reader, seed=None), batches, device)

    def _batches(
        self, examples: Examples, batches: TrainBatches | EvaluationBatches, device: torch.device | str
    ) -> Batches:
        return Batches(
            examples,
            batches,
            self.bad_images,
            collate=collate,
            to_device=to_device,
            workers=self.workers,
            timeout=self.loader_timeout,
            device=device,
        )

    def about(self) -> dict[str, Any]:
        """Categories and image size: what is needed to use weights trained on this data."""
        return {
            "classes": self.classes,
            "category_ids": [category.id for category in self.train.categories],
            "preprocess": {"image_size": self.image_size},
        }

    def facts(self, options: DetectionOptions) -> dict[str, Any]:
        """What must be the same when a run is resumed, beside :meth:`about`."""
        chosen = {name: getattr(options, name) for name in ("distort", "zoom_out", "iou_crop", "hflip", "vflip")}
        return {"augment": chosen, **self.listing()}

    def baseline(self) -> dict[str, float]:
        """Those of the mean boxes of the training pictures, the same in every picture."""
        return mean_box_precision(self.train.pictures, self.evaluation.pictures)

    def listing(self) -> dict[str, str]:
        """For each split a digest of its annotations and of its pictures' names and sizes."""
        return {"training data": self.train.digest(), "evaluation data": self.evaluation.digest()}

    def other_loader(self, options: DetectionOptions, device: torch.device) -> None:
        """No other project reads the same."""


def open_data(
    name: str | Path,
    *,
    image_size: int | tuple[int, int] | None = None,
    batch_size: int = 32,
    eval_batch_size: int | None = None,
    workers: int = 0,
    seed: int = 0,
    bad_images: str = "error",
    max_bad_images: int | None = None,
    train_split: str | None = None,
    eval_split: str | None = None,
    loader_timeout: float = 120.0,
) -> DetectionData:
    """Open annotation files in COCO's format.

    Args:
        name: a folder with ``instances_train.json`` and ``instances_val.json`` or their like, or one such file; see
            :func:`dynaconv.data.coco_splits.open_coco`.
        image_size: side of the square that the network sees; 300 if ``None``.
        batch_size: pictures of one optimizer step over all processes.
        eval_batch_size: of evaluation; ``batch_size`` if ``None``.
        workers: loader processes; 0 loads in this one. The batches are the same either way.
        seed: of the training order and the augmentation.
        bad_images: ``error`` or ``skip`` (counted, named in the log, at most ``max_bad_images``: 1 %, at least 10).
        train_split, eval_split: names of annotation files, or words of them.
        loader_timeout: seconds after which a silent worker is an error.

    Raises:
        UserError: missing or damaged files, no pictures, a number out of range.
    """
    size = _side(SIZE if image_size is None else image_size)
    check_opening(
        batch_size=batch_size,
        eval_batch_size=eval_batch_size,
        workers=workers,
        seed=seed,
        bad_images=bad_images,
        max_bad_images=max_bad_images,
        loader_timeout=loader_timeout,
    )
    train, evaluation = open_coco(name, keypoints=False, train_split=train_split, eval_split=eval_split)
    for coco in (train, evaluation):
        if not coco.pictures:
            raise UserError(f"{coco.path} has no pictures; expected at least one.")
    if not any(not one.crowd for picture in train.pictures for one in picture.annotations):
        raise UserError(f"{train.path} has no boxes to train on: its pictures are empty, or show crowds only.")
    whole = len(train.pictures) + len(evaluation.pictures)
    return DetectionData(
        train,
        evaluation,
        name=str(name),
        image_size=size,
        batch_size=batch_size,
        eval_batch_size=eval_batch_size or batch_size,
        workers=workers,
        seed=seed,
        bad_images=BadImages(bad_images, default_cap(whole) if max_bad_images is None else max_bad_images),
        loader_timeout=loader_timeout,
    )


def _side(size: int | tuple[int, int]) -> int:
    height, width = height_and_width(size)
    check_whole("image_size", max(height, width), 1, LARGEST_SIDE)
    if height != width or height < SMALLEST:
        raise UserError(f"image_size is {height}x{width}; detectors see squares of at least {SMALLEST} pixels a side")
    return height
