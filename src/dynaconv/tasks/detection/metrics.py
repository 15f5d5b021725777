"""Average precision as COCO defines it, over the pictures of all processes."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from torch import distributed, nn

from dynaconv.errors import UserError
from dynaconv.tasks.detection.batches import Batch, Target
from dynaconv.tasks.task import Metric

log = logging.getLogger(__name__)

SHOWN = (
    Metric("ap", "AP", percent=True),
    Metric("ap50", "AP50", percent=True),
    Metric("ap75", "AP75", percent=True),
    Metric("ar100", "AR100", percent=True),
)
_PLACES = {"ap": 0, "ap50": 1, "ap75": 2, "ar100": 8}  # in COCO's list of twelve numbers

Objects = dict[str, np.ndarray]
"""What is in one picture, or was found: ``boxes`` (n, 4) corners in its pixels, ``labels`` (n,) and either ``area`` and
``crowd`` or ``scores``."""


class BoxMetrics:
    """Gathers what is there and what was found; :meth:`compute` is COCO's primary challenge metric and three more.

    ``ap`` is the mean over intersections over union 0.50, 0.55, ..., 0.95 and over the classes that occur; ``ap50`` and
    ``ap75`` are those of one threshold; ``ar100`` is the largest recall with 100 boxes a picture. Pictures that could
    not be read are left out. Without any box to be found all are 0.
    """

    def __init__(self) -> None:
        _library()  # said before the evaluation and not after it
        self._there: dict[int, Objects] = {}
        self._found: dict[int, Objects] = {}

    def update(self, model: nn.Module, batch: Batch) -> None:
        for target, found in zip(batch[1], detect(model, batch), strict=True):
            picture = int(target["image"])
            names = ("boxes", "labels", "area", "crowd")
            self._there[picture] = {name: target[name].cpu().numpy() for name in names}
            self._found[picture] = {name: value.numpy() for name, value in found.items()}

    def compute(self) -> dict[str, float]:
        there, found = _of_all_processes(self._there), _of_all_processes(self._found)
        return average_precision(there, found)


def detect(model: nn.Module, batch: Batch) -> list[Target]:
    """What the network finds, by falling score: ``boxes`` in pixels of the picture, ``scores``, ``labels`` from 1."""
    images, targets = batch
    side = images.shape[-1]
    detections = []
    for found, target in zip(model(list(images)), targets, strict=True):
        scale = (target["size"].double() / side).repeat(2)
        plain = {name: value.cpu() for name, value in found.items()}
        detections.append({**plain, "boxes": plain["boxes"].double() * scale, "scores": plain["scores"].double()})
    return detections


def average_precision(there: dict[int, Objects], found: dict[int, Objects]) -> dict[str, float]:
    """COCO's numbers from the objects of every picture, by the picture's id.

    Args:
        there: annotated objects; the pictures that count are those that it has.
        found: detections.
    """
    truth, results = _records(there), _records({picture: found[picture] for picture in there if picture in found})
    if not any(not record["iscrowd"] for record in truth):
        log.warning("there is no box to be found in the %d pictures: the average precision is 0", len(there))
        return dict.fromkeys(_PLACES, 0.0)
    coco, evaluator = _library()
    labels = {record["category_id"] for record in (*truth, *results)}
    dataset = {
        "images": [{"id": picture} for picture in there],
        "categories": [{"id": label, "name": str(label)} for label in sorted(labels)],
        "annotations": truth,
    }
    whole = coco(dataset)
    evaluation = evaluator(whole, whole.loadRes(results), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    # -1 stands for "nothing to measure"; here there is
    return {name: max(0.0, float(evaluation.stats[place])) for name, place in _PLACES.items()}


def _records(pictures: dict[int, Objects]) -> list[dict[str, Any]]:
    """As COCO's evaluation takes them; ids begin at 1, for it takes 0 to mean "not matched"."""
    records: list[dict[str, Any]] = []
    for picture, objects in sorted(pictures.items()):
        for place, (x1, y1, x2, y2) in enumerate(objects["boxes"].tolist()):
            record = {
                "id": len(records) + 1,
                "image_id": picture,
                "category_id": int(objects["labels"][place]),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "iscrowd": 0,
            }
            if "scores" in objects:
                record["score"] = float(objects["scores"][place])
            else:
                record.update(area=float(objects["area"][place]), iscrowd=int(objects["crowd"][place]))
            records.append(record)
    return records


def _of_all_processes(own: dict[int, Objects]) -> dict[int, Objects]:
    """By rising id, so that the numbers do not depend on the number of processes."""
    parts: list[Any] = [own]
    if distributed.is_available() and distributed.is_initialized():
        parts = [None] * distributed.get_world_size()
        distributed.all_gather_object(parts, own)
    return dict(sorted((picture, objects) for part in parts for picture, objects in part.items()))


def _library() -> tuple[Any, Any]:
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise UserError(
            f"COCO's metrics need faster-coco-eval ({error}). Install it: pip install 'dynaconv[detection]'"
        ) from error
    return COCO, COCOeval_faster
