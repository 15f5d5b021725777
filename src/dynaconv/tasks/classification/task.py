"""Cross-entropy, top-1 and top-5; mixup and label smoothing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dynaconv.data import BadImages, Batches, EvaluationBatches, Examples, default_cap
from dynaconv.errors import UserError
from dynaconv.tasks.classification.batches import LabelledImages, Normalise, collate
from dynaconv.tasks.classification.folder import Files
from dynaconv.tasks.classification.transforms import Augment, Preprocess, Transform, evaluation_transform
from dynaconv.tasks.network import ModelSpec, build_model
from dynaconv.tasks.task import Metric, TaskOptions

if TYPE_CHECKING:
    from PIL.Image import Image

    from dynaconv.tasks.classification.image_data import ImageData

Batch = tuple[Tensor, Tensor]  # images (B, C, H, W); labels (B,) int64, or (B, classes) when mixed


class ClassificationOptions(Augment, TaskOptions):
    """The options of classification, with those of the augmentation.

    Attributes:
        label_smoothing, mixup, cutmix, mixup_prob: timm's Mixup; the two alphas are 0 for off.
    """

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    mixup: float = Field(default=0.0, ge=0)
    cutmix: float = Field(default=0.0, ge=0)
    mixup_prob: float = Field(default=1.0, ge=0, le=1)

    @property
    def augment(self) -> Augment:
        """The augmentation alone."""
        return Augment(**{name: getattr(self, name) for name in Augment.model_fields})


class Classification:
    """``loss = CE(model(images), labels)`` in float32 under any autocast; mixup and label smoothing as in timm.

    Args:
        classes: number of classes, or their names.
        options: label smoothing, mixup, memory format; ``None`` to evaluate only.
        batch_size: examples per process, which mixup wants even.
        preprocess: the preprocessing of the network's pictures; only :meth:`file_batches` needs it.
    """

    name = "classification"
    options: type[TaskOptions] = ClassificationOptions
    metrics_shown: tuple[Metric, ...] = (
        Metric("eval_loss", "loss", higher_is_better=False),
        Metric("top1", "top-1", percent=True),
        Metric("top5", "top-5", percent=True),
    )
    best = "top1"
    predictions_key = "classes"

    def __init__(
        self,
        classes: int | Sequence[str],
        options: ClassificationOptions | None = None,
        batch_size: int = 2,
        preprocess: Preprocess | None = None,
    ) -> None:
        self.preprocess = preprocess
        self.classes = [str(number) for number in range(classes)] if isinstance(classes, int) else list(classes)
        self._smoothing = options.label_smoothing if options else 0.0
        self._format = torch.channels_last if options and options.channels_last else torch.contiguous_format
        self._mix = _mixup(options, len(self.classes), batch_size) if options else None

    @classmethod
    def of_weights(cls, about: dict[str, Any], options: TaskOptions | None = None) -> tuple[Classification, nn.Module]:
        """See :meth:`dynaconv.tasks.task.Task.of_weights`."""
        missing = [name for name in ("model", "classes", "preprocess") if name not in about]
        if missing:
            raise UserError(
                f"they do not say their {', '.join(missing)}; expected weights written by 'dynaconv train'; for others "
                "name the network too: NAME --weights FILE"
            )
        size = Preprocess(**about["preprocess"]).image_size
        network = build_model(ModelSpec(**about["model"]), len(about["classes"]), image_size=size, blank=True)
        memory = None if options is None else ClassificationOptions(channels_last=options.channels_last)
        return cls(about["classes"], memory, preprocess=Preprocess(**about["preprocess"])), network

    @classmethod
    def open_data(cls, name: str, **opening: Any) -> ImageData:
        """See :func:`dynaconv.tasks.classification.open_data`."""
        from dynaconv.tasks import call_with_options
        from dynaconv.tasks.classification.datasets import open_data

        return cast("ImageData", call_with_options(open_data, "the task classification", name, **opening))

    def prepare(self, batch: Batch) -> Batch:
        return batch if self._mix is None else self._mix(*batch)

    def split(self, batch: Batch, parts: int) -> Sequence[Batch]:
        if parts == 1:
            return [batch]
        images, labels = batch
        return list(zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True))

    def size(self, batch: Batch) -> int:
        return len(batch[0])

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        labels = batch[1]
        # mixed labels have been smoothed by timm's Mixup
        smoothing = 0.0 if labels.is_floating_point() else self._smoothing
        logits = model(self.inputs(batch))
        return F.cross_entropy(logits.float(), labels, label_smoothing=smoothing)

    def inputs(self, batch: Batch) -> Tensor:
        return batch[0].contiguous(memory_format=self._format)

    def correctness(self, model: nn.Module, batch: Batch) -> Tensor:
        """1 where the class with the largest logit is the label."""
        return model(self.inputs(batch)).argmax(dim=1) == batch[1]

    def metrics(self, device: Any) -> ClassificationMetrics:
        return ClassificationMetrics(len(self.classes), device, self._format)

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
        everything: bool = False,
        root: Path | None = None,
        eval_split: str | None = None,
    ) -> Batches:
        """See :meth:`dynaconv.tasks.task.Task.labelled_batches`.

        Args:
            everything: all images below a folder of classes; some of the classes may be absent.
            root, eval_split: as in ``open_data``.
        """
        from dynaconv.tasks.classification.prediction import evaluation_source, plain_batches

        source = evaluation_source(name, self.classes, everything=everything, root=root, eval_split=eval_split)
        cap = default_cap(len(source)) if max_bad_images is None else max_bad_images
        return plain_batches(
            source,
            self._known_preprocess(),
            batch_size=batch_size,
            workers=workers,
            bad_images=BadImages(bad_images, cap),
            processes=processes,
            process=process,
            device=device,
        )

    def _known_preprocess(self) -> Preprocess:
        if self.preprocess is None:
            raise ValueError("this task does not know its preprocessing; take the task that load_trained returns")
        return self.preprocess

    def file_batches(
        self, paths: Sequence[Path], *, batch_size: int, workers: int, bad_images: BadImages, device: Any
    ) -> Batches:
        """See :meth:`dynaconv.tasks.task.Task.file_batches`."""
        preprocess = self._known_preprocess()
        normalise = Normalise(preprocess)

        def numbered(batch: Batch, device: torch.device) -> tuple[list[int], Batch]:
            return batch[1].tolist(), normalise(batch, device)

        return Batches(
            Examples(LabelledImages(Files(paths), evaluation_transform(preprocess)), seed=None),
            EvaluationBatches(len(paths), batch_size),
            bad_images,
            collate=collate,
            to_device=numbered,
            workers=workers,
            device=device,
        )

    @cached_property
    def _evaluated(self) -> Transform:
        return evaluation_transform(self._known_preprocess())

    @cached_property
    def _normalise(self) -> Normalise:
        return Normalise(self._known_preprocess())

    def example(self, picture: Image) -> Any:
        """See :meth:`dynaconv.tasks.task.Task.example`; ``(3, S, S)`` uint8."""
        return self._evaluated(picture)

    def batch(self, examples: Sequence[Any], device: torch.device) -> Batch:
        """See :meth:`dynaconv.tasks.task.Task.batch`; the labels are 0."""
        return self._normalise(collate([(example, 0) for example in examples]), device)

    def predict(self, model: nn.Module, batch: Batch, top: int = 5) -> list[list[dict[str, Any]]]:
        """For every image its ``top`` classes by falling probability: ``{"class": name, "probability": p}``."""
        logits = model(self.inputs(batch)).float()
        shares, labels = logits.softmax(dim=1).topk(min(top, len(self.classes)), dim=1)
        return [
            [
                {"class": self.classes[label], "probability": round(share, 6)}
                for share, label in zip(row_shares, row_labels, strict=True)
            ]
            for row_shares, row_labels in zip(shares.tolist(), labels.tolist(), strict=True)
        ]

    def table(self, found: Sequence[list[Any]]) -> tuple[list[str], list[list[list[Any]]]]:
        """One row for every image: its classes and their probabilities by falling probability."""
        top = max((len(classes) for classes in found), default=0)
        columns = [name for rank in range(1, top + 1) for name in (f"class_{rank}", f"probability_{rank}")]
        return columns, [
            [[cell for one in classes for cell in (one["class"], one["probability"])]] for classes in found
        ]

    def draw(self, picture: Image, prediction: Any, top: int = 3) -> Image:
        """The ``top`` classes with their probabilities on a dark strip at the lower edge."""
        from PIL import ImageDraw, ImageFont

        drawn = picture.convert("RGB").copy()
        lines = [f"{one['class']} {100 * one['probability']:.1f} %" for one in prediction[:top]]
        font = ImageFont.load_default(max(10, drawn.height // 16))
        pencil = ImageDraw.Draw(drawn)
        left, upper, right, lower = pencil.multiline_textbbox((0, 0), "\n".join(lines), font=font)
        height = int(lower - upper) + 6
        pencil.rectangle((0, drawn.height - height, min(drawn.width, right - left + 8), drawn.height), fill=(0, 0, 0))
        place = (4 - left, drawn.height - height + 3 - upper)
        pencil.multiline_text(place, "\n".join(lines), fill=(255, 255, 255), font=font)
        return drawn


class ClassificationMetrics:
    """``eval_loss``, ``top1`` and ``top5`` (always 1 with five classes or fewer) over the examples of all processes."""

    def __init__(self, classes: int, device: Any, memory_format: torch.memory_format) -> None:
        from torchmetrics import MeanMetric
        from torchmetrics.classification import MulticlassAccuracy

        self._format = memory_format
        self._loss = MeanMetric(nan_strategy="disable").to(device)
        # micro: every example counts the same; torchmetrics' default averages over classes
        self._top1 = MulticlassAccuracy(classes, average="micro", validate_args=False).to(device)
        self._top5 = MulticlassAccuracy(classes, top_k=min(5, classes), average="micro", validate_args=False).to(device)

    def update(self, model: nn.Module, batch: Batch) -> None:
        images, labels = batch
        logits = model(images.contiguous(memory_format=self._format)).float()
        self._loss.update(F.cross_entropy(logits, labels, reduction="none"))
        self._top1.update(logits, labels)
        self._top5.update(logits, labels)

    def compute(self) -> dict[str, float]:
        return {
            "eval_loss": float(self._loss.compute()),
            "top1": float(self._top1.compute()),
            "top5": float(self._top5.compute()),
        }


def _mixup(options: ClassificationOptions, classes: int, batch_size: int) -> Any:
    if not options.mixup and not options.cutmix:
        return None
    if batch_size % 2:
        raise UserError(f"mixup and cutmix mix pairs: expected an even batch per process, got {batch_size}")
    from timm.data import Mixup

    return Mixup(
        mixup_alpha=options.mixup,
        cutmix_alpha=options.cutmix,
        prob=options.mixup_prob,
        label_smoothing=options.label_smoothing,
        num_classes=classes,
    )
