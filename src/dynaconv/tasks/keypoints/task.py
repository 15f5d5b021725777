"""Top-down keypoints: heat maps from crops of persons, mean squared error, OKS average precision."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from dynaconv.data import BadImages, Batches, EvaluationBatches, default_cap
from dynaconv.data.coco_splits import open_coco_part
from dynaconv.errors import UserError
from dynaconv.tasks.keypoints.augment import PoseAugment
from dynaconv.tasks.keypoints.crops import Batch, Crops, OnDevice, collate, crop_batches, unlabelled
from dynaconv.tasks.keypoints.drawing import draw_poses
from dynaconv.tasks.keypoints.geometry import CENTRE
from dynaconv.tasks.keypoints.heatmaps import default_sigma, gaussians, mirrored_back, peaks
from dynaconv.tasks.keypoints.metrics import METRICS, KeypointMetrics, Truth
from dynaconv.tasks.keypoints.people import annotated, category_with_keypoints, detected, in_files
from dynaconv.tasks.keypoints.pose import PoseSpec
from dynaconv.tasks.network import ModelSpec, build_model
from dynaconv.tasks.task import Metric, TaskOptions

if TYPE_CHECKING:
    from PIL.Image import Image

    from dynaconv.tasks.keypoints.data import KeypointData


class KeypointOptions(PoseAugment, TaskOptions):
    """What keypoints can be told beside the loop's settings; the augmentation's stand among them.

    Attributes:
        sigma: of the target's Gaussian, in pixels of the heat map; 2 for 64 rows and in proportion if ``None``.
    """

    sigma: float | None = Field(default=None, gt=0)

    @property
    def augment(self) -> PoseAugment:
        """The augmentation alone."""
        return PoseAugment(**{name: getattr(self, name) for name in PoseAugment.model_fields})


class Keypoints:
    """``loss = 1/2 mean_k w_k mean_p (heat_k(p) - target_k(p))^2``, in float32 under any autocast.

    The mean is over all keypoints, labelled (w 1) or not (w 0), as in the code of Xiao et al. 2018. Testing averages
    the heat maps of a crop and of its mirror image.

    Args:
        pose: keypoints and crop.
        options: width of the targets, memory format; ``None`` for the defaults.
        truth: what evaluation compares with; needed by :meth:`metrics` alone.
    """

    name = "keypoints"
    options: type[TaskOptions] = KeypointOptions
    metrics_shown: tuple[Metric, ...] = METRICS
    best = "ap"
    predictions_key = "poses"

    def __init__(self, pose: PoseSpec, options: Any = None, *, truth: Truth | None = None) -> None:
        self.pose, self.truth = pose, truth
        sigma = getattr(options, "sigma", None)
        self._sigma = default_sigma(pose.heat_size[0]) if sigma is None else sigma
        self._format = torch.channels_last if options and options.channels_last else torch.contiguous_format

    @classmethod
    def of_weights(cls, about: dict[str, Any], options: TaskOptions | None = None) -> tuple[Keypoints, nn.Module]:
        """See :meth:`dynaconv.tasks.task.Task.of_weights`."""
        missing = [name for name in ("model", "pose") if name not in about]
        if missing:
            raise UserError(f"they do not say their {', '.join(missing)}; expected weights written by 'dynaconv train'")
        pose = PoseSpec(**about["pose"])
        network = build_model(
            ModelSpec(**about["model"]),
            len(pose.names),
            image_size=pose.image_size,
            blank=True,
            argument="num_keypoints",
        )
        return cls(pose, options), network

    @classmethod
    def open_data(cls, name: str, **opening: Any) -> KeypointData:
        """See :func:`dynaconv.tasks.keypoints.open_data`."""
        from dynaconv.tasks import call_with_options
        from dynaconv.tasks.keypoints.data import open_data

        return cast("KeypointData", call_with_options(open_data, "the task keypoints", name, **opening))

    def prepare(self, batch: Batch) -> Batch:
        return batch

    def split(self, batch: Batch, parts: int) -> Sequence[Batch]:
        parts = min(parts, self.size(batch))
        cut = {name: tensor.tensor_split(parts) for name, tensor in batch.items()}
        return [{name: pieces[index] for name, pieces in cut.items()} for index in range(parts)]

    def size(self, batch: Batch) -> int:
        return len(batch["images"])

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return self._losses(self._heat(model, batch["images"]), batch).mean()

    def inputs(self, batch: Batch) -> Tensor:
        return batch["images"].contiguous(memory_format=self._format)

    def correctness(self, model: nn.Module, batch: Batch) -> None:
        """Average precision is no mean over persons."""

    def metrics(self, device: Any) -> KeypointMetrics:
        if self.truth is None:
            raise ValueError("this task has nothing to compare with; call labelled_batches first, or take data.task()")
        return KeypointMetrics(self.truth, self._find, device)

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
        boxes: str | Path | None = None,
        box_score: float = 0.0,
    ) -> Batches:
        """See :meth:`dynaconv.tasks.task.Task.labelled_batches`; :meth:`metrics` compares with this data from now on.

        Args:
            eval_split, boxes, box_score: as in ``open_data``.
        """
        coco = open_coco_part(name, keypoints=True, split=eval_split)
        label, category = category_with_keypoints(coco, self.pose.category)
        names = category.skeleton.names if category.skeleton else ()
        if names != self.pose.names:
            raise UserError(
                f"{coco.path}: the keypoints of {category.name!r} are {', '.join(names)}, and the network was trained "
                f"for {', '.join(self.pose.names)}. Expected the same in the same order."
            )
        people = annotated(coco, label) if boxes is None else detected(boxes, coco, category, box_score)
        self.truth = Truth(coco, label, self.pose, people, suppress=boxes is not None)
        cap = default_cap(len(people)) if max_bad_images is None else max_bad_images
        return crop_batches(
            Crops(people, self.pose),
            EvaluationBatches(len(people), batch_size, processes=processes, process=process),
            BadImages(bad_images, cap),
            workers=workers,
            device=device,
        )

    def file_batches(
        self,
        paths: Sequence[Path],
        *,
        batch_size: int,
        workers: int = 0,
        bad_images: BadImages,
        device: Any = "cpu",
        boxes: str | Path | None = None,
    ) -> Batches:
        """See :meth:`dynaconv.tasks.task.Task.file_batches`.

        Args:
            boxes: a COCO results file with the persons' boxes, see
                :func:`~dynaconv.tasks.keypoints.people.in_files`; the whole picture is one person's box if ``None``.
        """
        found = in_files(paths, boxes)
        on_device = OnDevice(self.pose)

        def numbered(batch: Batch, device: torch.device) -> tuple[list[int], Batch]:
            return [found[row][0] for row in batch["rows"].tolist()], on_device(batch, device)

        return crop_batches(
            Crops([person for _, person in found], self.pose),
            EvaluationBatches(len(found), batch_size),
            bad_images,
            to_device=numbered,
            workers=workers,
            device=device,
        )

    def example(self, picture: Image) -> Batch:
        """See :meth:`dynaconv.tasks.task.Task.example`; the whole picture is one person's box."""
        return unlabelled(picture, None, self.pose)

    def batch(self, examples: Sequence[Batch], device: torch.device) -> Batch:
        """See :meth:`dynaconv.tasks.task.Task.batch`."""
        return OnDevice(self.pose)(collate(list(examples)), device)

    def predict(self, model: nn.Module, batch: Batch) -> list[list[dict[str, Any]]]:
        """The pose in every crop: ``{"box": [x, y, width, height], "score": s, "keypoints": [{name, x, y, score}]}``.

        Coordinates count pixels of the picture, the centre of the first one is 0; a pose's score is the mean of its
        keypoints' times the box's.
        """
        points, scores, _ = self._find(model, batch)
        whole = scores.mean(dim=1) * batch["box_scores"]
        rows = zip(batch["boxes"].tolist(), whole.tolist(), points.tolist(), scores.tolist(), strict=True)
        return [[self._pose(*row)] for row in rows]

    def table(self, found: Sequence[list[Any]]) -> tuple[list[str], list[list[list[Any]]]]:
        """One row for every pose: box, score, and x, y and score of every keypoint."""
        columns = [f"{name}_{part}" for name in self.pose.names for part in ("x", "y", "score")]
        return ["box_x", "box_y", "box_width", "box_height", "score", *columns], [
            [
                [
                    *pose["box"],
                    pose["score"],
                    *(point[part] for point in pose["keypoints"] for part in ("x", "y", "score")),
                ]
                for pose in poses
            ]
            for poses in found
        ]

    def draw(self, picture: Image, prediction: Any) -> Image:
        """The skeletons, see :func:`~dynaconv.tasks.keypoints.drawing.draw_poses`."""
        return draw_poses(picture, prediction, self.pose)

    def _heat(self, model: nn.Module, images: Tensor) -> Tensor:
        heat: Tensor = model(images.contiguous(memory_format=self._format)).float()
        expected = (len(images), len(self.pose.names), *self.pose.heat_size)
        if heat.shape != expected:
            raise UserError(
                f"The network returns {tuple(heat.shape)} and heat maps {expected} are expected: choose a keypoint "
                "network (their names begin with keypoints_)."
            )
        return heat

    def _losses(self, heat: Tensor, batch: Batch) -> Tensor:
        """Of every example, ``(B,)``."""
        errors = (heat - gaussians(batch["points"], self.pose.heat_size, self._sigma)).square().mean(dim=(2, 3))
        return 0.5 * (errors * batch["weights"]).mean(dim=1)

    def _find(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Points in the picture ``(B, K, 2)``, scores ``(B, K)``, and the losses of the crops as they are ``(B,)``."""
        heat = self._heat(model, batch["images"])
        losses = self._losses(heat, batch)
        turned = mirrored_back(self._heat(model, batch["images"].flip(-1)), self.pose.swapped)
        points, scores = peaks((heat + turned) / 2)
        back = batch["back"]
        # not a matrix product, which autocast would compute in half precision
        placed = (points[:, :, None, :] * back[:, None, :, :2]).sum(dim=-1) + back[:, None, :, 2] - CENTRE
        return placed, scores, losses

    def _pose(self, box: list[float], score: float, points: list[list[float]], scores: list[float]) -> dict[str, Any]:
        x1, y1, x2, y2 = box
        return {
            "box": [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)],
            "score": round(score, 6),
            "keypoints": [
                {"name": name, "x": round(x, 2), "y": round(y, 2), "score": round(height, 6)}
                for name, (x, y), height in zip(self.pose.names, points, scores, strict=True)
            ],
        }
