"""Average precision by object keypoint similarity (OKS), as COCO measures it, over all processes."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dynaconv.data.coco import Coco
from dynaconv.tasks.keypoints.people import Person
from dynaconv.tasks.keypoints.pose import PoseSpec
from dynaconv.tasks.task import Metric

METRICS = (
    Metric("eval_loss", "loss", higher_is_better=False),
    Metric("ap", "AP", percent=True),
    Metric("ap50", "AP50", percent=True),
    Metric("ap75", "AP75", percent=True),
    Metric("ap_medium", "AP medium", percent=True),
    Metric("ap_large", "AP large", percent=True),
    Metric("ar", "AR", percent=True),
)
STATS = {"ap": 0, "ap50": 1, "ap75": 2, "ap_medium": 3, "ap_large": 4, "ar": 5}  # places in COCOeval's stats
SAME_PERSON = 0.9  # similarity from which of two poses the one with the lower score is dropped

Pose = tuple[int, float, np.ndarray[Any, Any]]  # row, score, (K, 2)


class Truth:
    """What evaluation compares with: the annotations of one category in all pictures of a split.

    Args:
        people: the boxes that are evaluated, in the order of their rows.
        suppress: the boxes are a detector's: of poses of the same person the best is kept.
    """

    def __init__(
        self, coco: Coco, label: int, pose: PoseSpec, people: Sequence[Person], *, suppress: bool = False
    ) -> None:
        self.sigmas = np.array(pose.sigmas)
        self.images = [person.picture.id for person in people]
        self.areas = [(person.box[2] - person.box[0]) * (person.box[3] - person.box[1]) for person in people]
        self.suppress = suppress
        self.content = _content(coco, label, pose)

    def results(self, poses: Sequence[Pose]) -> list[dict[str, Any]]:
        """The poses as a COCO results file has them, in the order of their rows."""
        chosen = sorted(poses, key=lambda pose: pose[0])
        if self.suppress:
            chosen = self._suppressed(chosen)
        return [
            {
                "image_id": self.images[row],
                "category_id": 1,
                "keypoints": np.column_stack([points, np.ones(len(points))]).astype(np.float64).ravel().tolist(),
                "score": float(score),
            }
            for row, score, points in chosen
        ]

    def average_precision(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """COCO's figures, as fractions of 1; NaN where there is nobody of that size to be found."""
        if not results:
            return {name: self._of_nothing(name) for name in STATS}
        from faster_coco_eval import COCO, COCOeval_faster

        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO(self.content)
            run = COCOeval_faster(
                truth, truth.loadRes(results), "keypoints", print_function=_silent, kpt_oks_sigmas=self.sigmas.tolist()
            )
            run.run()
        stats = [float(value) for value in run.stats]
        return {name: stats[place] if stats[place] >= 0 else math.nan for name, place in STATS.items()}

    def _of_nothing(self, name: str) -> float:
        """Nothing was found: 0, or NaN if there was nothing to find."""
        sizes = {"ap_medium": (32**2, 96**2), "ap_large": (96**2, math.inf)}
        least, most = sizes.get(name, (0, math.inf))
        there = any(
            record["num_keypoints"] and not record["iscrowd"] and least <= record["area"] <= most
            for record in self.content["annotations"]
        )
        return 0.0 if there else math.nan

    def _suppressed(self, poses: list[Pose]) -> list[Pose]:
        """Of poses of one person in one picture, the one with the highest score (OKS non-maximum suppression)."""
        kept: dict[int, list[Pose]] = {}
        for pose in sorted(poses, key=lambda pose: -pose[1]):
            others = kept.setdefault(self.images[pose[0]], [])
            if all(self._similarity(other, pose) <= SAME_PERSON for other in others):
                others.append(pose)
        return sorted((pose for group in kept.values() for pose in group), key=lambda pose: pose[0])

    def _similarity(self, one: Pose, other: Pose) -> float:
        distance = np.square(one[2] - other[2]).sum(axis=1)
        area = (self.areas[one[0]] + self.areas[other[0]]) / 2
        return float(np.exp(-distance / (2 * np.square(2 * self.sigmas) * area)).mean())


def _silent(*_: Any) -> None:
    """The tables of the evaluator are not printed."""


def _content(coco: Coco, label: int, pose: PoseSpec) -> dict[str, Any]:
    """The annotations of one category, crowds and persons without keypoints among them, in COCO's form."""
    nothing = [0.0] * (3 * len(pose.names))
    records: list[dict[str, Any]] = []
    for picture in coco.pictures:
        for annotation in picture.annotations:
            if annotation.label != label:
                continue
            keypoints = nothing if annotation.keypoints is None else annotation.keypoints.astype(float).ravel().tolist()
            x1, y1, x2, y2 = annotation.box
            records.append(
                {
                    "id": len(records) + 1,
                    "image_id": picture.id,
                    "category_id": 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": annotation.area,
                    "iscrowd": int(annotation.crowd),
                    "keypoints": keypoints,
                    "num_keypoints": sum(value > 0 for value in keypoints[2::3]),
                }
            )
    return {
        "info": {},
        "images": [{"id": picture.id, "width": picture.width, "height": picture.height} for picture in coco.pictures],
        "annotations": records,
        "categories": [{"id": 1, "name": pose.category, "keypoints": list(pose.names), "skeleton": []}],
    }


class KeypointMetrics:
    """Gathers one evaluation: the loss over labelled crops, and a pose for every box.

    Args:
        find: from a model and a batch to heat maps' points in the picture ``(B, K, 2)``, scores ``(B, K)``, and the
            loss of every example ``(B,)``.
    """

    def __init__(
        self, truth: Truth, find: Callable[[nn.Module, dict[str, Tensor]], tuple[Tensor, Tensor, Tensor]], device: Any
    ) -> None:
        self._truth, self._find = truth, find
        self._poses: list[Pose] = []
        self._loss = torch.zeros(2, dtype=torch.float64, device=device)  # sum, examples

    def update(self, model: nn.Module, batch: dict[str, Tensor]) -> None:
        points, scores, losses = self._find(model, batch)
        labelled = (batch["weights"] > 0).any(dim=1)
        self._loss += torch.stack([(losses.double() * labelled).sum(), labelled.sum().double()])
        whole = (scores.mean(dim=1) * batch["box_scores"]).tolist()
        self._poses += zip(batch["rows"].tolist(), whole, points.float().cpu().numpy(), strict=True)

    def compute(self) -> dict[str, float]:
        loss, examples = _summed(self._loss).tolist()
        found = self._truth.average_precision(self._truth.results(_gathered(self._poses)))
        return {"eval_loss": loss / examples if examples else math.nan, **found}


def _summed(values: Tensor) -> Tensor:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(values)
    return values


def _gathered(poses: list[Pose]) -> list[Pose]:
    """Those of all processes."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return poses
    shares: list[list[Pose]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(shares, poses)
    return [pose for share in shares for pose in share]
