"""Exported networks (ONNX) as networks of their tasks: ONNX Runtime computes, and routing weights stay inside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dynaconv.errors import UserError
from dynaconv.export import Exported, load
from dynaconv.export.agreement import ExportedNetwork, normalisation_of, preprocessing_of
from dynaconv.export.source import SUPPRESSION
from dynaconv.tasks.task import Task


class ExportedDetector(nn.Module):
    """``[(3, S, S) from 0 to 1, ...]`` -> for every image ``boxes``, ``scores`` and ``labels``, as torchvision's SSD.

    The file has raw boxes and scores. Here boxes are clipped, those of low scores dropped, and those that overlap a
    better one of their class, with the numbers that the network was exported with.
    """

    def __init__(self, exported: Exported) -> None:
        super().__init__()
        limits = exported.about["suppression"]
        self.network, self.score, self.overlap = ExportedNetwork(exported), limits["score_thresh"], limits["nms_thresh"]
        self.most, self.candidates = limits["detections_per_img"], limits["topk_candidates"]
        self.mean, self.std = (torch.tensor(value).view(-1, 1, 1) for value in normalisation_of(exported))

    def forward(self, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        inputs = (torch.stack(list(images)) - self.mean) / self.std
        found = self.network.outputs(inputs)
        size = inputs.shape[-2:]
        return [self._kept(*pair, size) for pair in zip(found["boxes"], found["scores"], strict=True)]

    def _kept(self, boxes: Tensor, scores: Tensor, size: Sequence[int]) -> dict[str, Tensor]:
        from torchvision.ops import batched_nms, clip_boxes_to_image

        boxes, best = clip_boxes_to_image(boxes, (size[0], size[1])), []
        for label in range(1, scores.shape[1]):
            places = (scores[:, label] > self.score).nonzero()[:, 0]
            order = scores[places, label].argsort(descending=True)[: self.candidates]
            best.append((boxes[places[order]], scores[places[order], label], torch.full_like(order, label)))
        candidates, values, labels = (torch.cat(parts) for parts in zip(*best, strict=True))
        keep = batched_nms(candidates, values, labels, self.overlap)[: self.most]
        return {"boxes": candidates[keep], "scores": values[keep], "labels": labels[keep]}


def load_exported(path: Path, classes: Sequence[str] | None) -> tuple[nn.Module, Task, str]:
    """The network of an ONNX file, its task, and a name for people.

    Raises:
        UserError: damaged, foreign, or without what serving needs, such as names of classes.
    """
    exported = load(path, threads=torch.get_num_threads())
    if classes is not None and exported.task != "classification":
        raise UserError(f"{path} says what it finds itself; --classes is for classifiers that do not.")
    network, task = _MAKERS[exported.task](exported, path, classes)
    return network, task, f"{exported.about.get('name', path.stem)} ({exported.runtime})"


def _classifier(exported: Exported, path: Path, classes: Sequence[str] | None) -> tuple[nn.Module, Task]:
    from dynaconv.tasks.classification.task import Classification

    names = classes or exported.classes
    if names is None:
        raise UserError(f"{path} does not say the names of its classes. Give --classes FILE with one name a line.")
    preprocess, network = preprocessing_of(exported), ExportedNetwork(exported)
    count = network(torch.zeros(1, *exported.input_size)).shape[-1]
    if count != len(names):
        raise UserError(f"{len(names)} classes are named, and the network of {path} has {count} outputs.")
    return network, Classification(list(names), preprocess=preprocess)


def _detector(exported: Exported, path: Path, classes: Any) -> tuple[nn.Module, Task]:
    from dynaconv.data.coco import Category
    from dynaconv.tasks.detection.task import Detection

    names, limits = exported.classes, exported.about.get("suppression")
    known = isinstance(limits, dict) and all(isinstance(limits.get(name), (int, float)) for name in SUPPRESSION)
    if names is None or not known or not {"mean", "std"} <= set(exported.preprocessing):
        raise UserError(f"{path} does not say its classes, or how boxes are suppressed. Export it from a run again.")
    _, height, width = exported.input_size
    if height != width:
        raise UserError(f"{path} takes images of {height}x{width} pixels; expected squares.")
    categories = [Category(number, name) for number, name in enumerate(names[1:], start=1)]  # without the background
    return ExportedDetector(exported), Detection(categories, height)


def _keypoints(exported: Exported, path: Path, classes: Any) -> tuple[nn.Module, Task]:
    from dynaconv.tasks.keypoints.pose import PoseSpec
    from dynaconv.tasks.keypoints.task import Keypoints

    inside = {} if exported.input == "normalised" else {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    try:
        pose = PoseSpec(**{**exported.about["pose"], **inside})
    except (UserError, ValueError, TypeError, KeyError) as error:
        told = "" if isinstance(error, KeyError) else f" ({error})"
        raise UserError(f"{path} does not say its keypoints{told}. Export it from a run again.") from error
    size = tuple(exported.input_size[1:])
    if size != pose.image_size:
        raise UserError(
            f"{path} takes crops of {'x'.join(map(str, size))}, and its keypoints were trained on "
            f"{'x'.join(map(str, pose.image_size))}. Export it without --image-size."
        )
    return ExportedNetwork(exported), Keypoints(pose)


_MAKERS = {"classification": _classifier, "detection": _detector, "keypoints": _keypoints}
