"""Detection with SSD: torchvision's losses, COCO's metrics, boxes in the pixels of the picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from dynaconv.data import BadImages, Batches, EvaluationBatches, Examples, default_cap
from dynaconv.data.coco import Category
from dynaconv.data.coco_splits import open_coco_part
from dynaconv.errors import UserError
from dynaconv.tasks.detection.batches import Batch, EvaluationPictures, Files, collate, to_device, unlabelled
from dynaconv.tasks.detection.drawing import draw_boxes
from dynaconv.tasks.detection.metrics import SHOWN, BoxMetrics, detect
from dynaconv.tasks.detection.network import build_detector
from dynaconv.tasks.detection.transforms import DetectionOptions, Target
from dynaconv.tasks.network import ModelSpec
from dynaconv.tasks.task import Metric, TaskOptions

if TYPE_CHECKING:
    from PIL.Image import Image

    from dynaconv.tasks.detection.datasets import DetectionData

LEAST_SCORE = 0.3  # of the boxes that `predict` reports, unless told otherwise


class Detection:
    """``loss`` is the sum of torchvision's two: smooth L1 of the boxes, cross-entropy with hard negatives 3 : 1.

    Both are divided by the matched anchors of the batch that the network sees, as in the SSD paper: with
    ``accumulate``, or on several processes, of each part.

    Args:
        categories: the classes, by label.
        image_size: side of the square that the network sees.
    """

    name = "detection"
    options: type[TaskOptions] = DetectionOptions
    metrics_shown: tuple[Metric, ...] = SHOWN
    best = "ap"
    predictions_key = "boxes"

    def __init__(self, categories: Sequence[Category], image_size: int) -> None:
        self.categories, self.image_size = tuple(categories), image_size
        self.classes = [category.name for category in categories]

    @classmethod
    def of_weights(cls, about: dict[str, Any], options: TaskOptions | None = None) -> tuple[Detection, nn.Module]:
        """See :meth:`dynaconv.tasks.task.Task.of_weights`."""
        wanted = ("model", "classes", "category_ids", "preprocess")
        missing = [name for name in wanted if name not in about]
        if missing:
            raise UserError(f"they do not say their {', '.join(missing)}; expected weights written by 'dynaconv train'")
        ids = zip(about["category_ids"], about["classes"], strict=True)
        task = cls([Category(number, name) for number, name in ids], about["preprocess"]["image_size"])
        return task, build_detector(ModelSpec(**about["model"]), len(task.classes), task.image_size)

    @classmethod
    def open_data(cls, name: str, **opening: Any) -> DetectionData:
        """See :func:`dynaconv.tasks.detection.open_data`."""
        from dynaconv.tasks import call_with_options
        from dynaconv.tasks.detection.datasets import open_data

        return cast("DetectionData", call_with_options(open_data, "the task detection", name, **opening))

    def prepare(self, batch: Batch) -> Batch:
        return batch

    def split(self, batch: Batch, parts: int) -> Sequence[Batch]:
        images, targets = batch
        if parts == 1:
            return [batch]
        split, first = [], 0
        for part in images.tensor_split(parts):
            if len(part):
                split.append((part, targets[first : first + len(part)]))
            first += len(part)
        return split

    def size(self, batch: Batch) -> int:
        return len(batch[0])

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        losses: dict[str, Tensor] = model(self.inputs(batch), batch[1])
        return losses["bbox_regression"].float() + losses["classification"].float()

    def inputs(self, batch: Batch) -> list[Tensor]:
        """The images, one by one, as torchvision's detectors take them."""
        return list(batch[0])

    def correctness(self, model: nn.Module, batch: Batch) -> None:
        """Average precision is no mean over pictures."""

    def metrics(self, device: Any) -> BoxMetrics:
        return BoxMetrics()

    def labelled_batches(
        self,
        name: str,
        *,
        batch_size: int,
        workers: int = 0,
        bad_images: str = "error",
        max_bad_images: int | None = None,
        processes: int = 1,
        process: int = 0,
        device: Any = "cpu",
        eval_split: str | None = None,
    ) -> Batches:
        """See :meth:`dynaconv.tasks.task.Task.labelled_batches`; of one annotation file all pictures."""
        coco = open_coco_part(name, keypoints=False, split=eval_split, known=self.categories)
        reader = EvaluationPictures(coco.pictures, self.image_size)
        cap = default_cap(len(reader)) if max_bad_images is None else max_bad_images
        return Batches(
            Examples(reader, seed=None),
            EvaluationBatches(len(reader), batch_size, processes=processes, process=process),
            BadImages(bad_images, cap),
            collate=collate,
            to_device=to_device,
            workers=workers,
            device=device,
        )

    def file_batches(
        self, paths: Sequence[Path], *, batch_size: int, workers: int, bad_images: BadImages, device: Any
    ) -> Batches:
        """See :meth:`dynaconv.tasks.task.Task.file_batches`."""

        def numbered(batch: Any, device: Any) -> tuple[list[int], Batch]:
            moved = to_device(batch, device)
            return [int(target["image"]) for target in moved[1]], moved

        return Batches(
            Examples(Files(paths, self.image_size), seed=None),
            EvaluationBatches(len(paths), batch_size),
            bad_images,
            collate=collate,
            to_device=numbered,
            workers=workers,
            device=device,
        )

    def example(self, picture: Image) -> tuple[Tensor, Target]:
        """See :meth:`dynaconv.tasks.task.Task.example`."""
        return unlabelled(picture, self.image_size, 0)

    def batch(self, examples: Sequence[tuple[Tensor, Target]], device: torch.device) -> Batch:
        """See :meth:`dynaconv.tasks.task.Task.batch`."""
        return to_device(collate(list(examples)), device)

    def predict(
        self, model: nn.Module, batch: Batch, top: int | None = None, min_score: float = LEAST_SCORE
    ) -> list[list[dict[str, Any]]]:
        """For every image its boxes by falling score: ``{"class": name, "score": p, "box": [x1, y1, x2, y2]}``.

        Args:
            top: at most so many of an image.
            min_score: of the boxes that are reported.
        """
        return [self._plain(found, top, min_score) for found in detect(model, batch)]

    def _plain(self, found: dict[str, Tensor], top: int | None, least: float) -> list[dict[str, Any]]:
        values = zip(found["labels"].tolist(), found["scores"].tolist(), found["boxes"].tolist(), strict=True)
        return [
            {
                "class": self.classes[label - 1],
                "score": round(score, 6),
                "box": [round(corner, 2) for corner in box],
            }
            for label, score, box in values
            if score >= least
        ][:top]

    def table(self, found: Sequence[list[Any]]) -> tuple[list[str], list[list[list[Any]]]]:
        """A row for every box."""
        rows = [[[one["class"], one["score"], *one["box"]] for one in boxes] for boxes in found]
        return ["class", "score", "x1", "y1", "x2", "y2"], rows

    def draw(self, picture: Image, prediction: Any) -> Image:
        """See :func:`~dynaconv.tasks.detection.drawing.draw_boxes`."""
        return draw_boxes(picture, prediction)
