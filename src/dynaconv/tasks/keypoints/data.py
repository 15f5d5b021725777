"""``open_data``: from annotation files in COCO's format to batches of crops."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from dynaconv.data import BadImages, Batches, EvaluationBatches, TrainBatches, default_cap
from dynaconv.data.coco import Coco
from dynaconv.data.coco_splits import open_coco
from dynaconv.data.opening import check_opening
from dynaconv.errors import UserError
from dynaconv.tasks.keypoints.baseline import mean_pose_precision
from dynaconv.tasks.keypoints.crops import Crops, crop_batches
from dynaconv.tasks.keypoints.metrics import Truth
from dynaconv.tasks.keypoints.people import Person, annotated, category_with_keypoints, detected
from dynaconv.tasks.keypoints.pose import PoseSpec, make_pose
from dynaconv.tasks.network import ModelSpec, build_model, height_and_width

if TYPE_CHECKING:
    from PIL.Image import Image

    from dynaconv.tasks.keypoints.task import KeypointOptions, Keypoints


class KeypointData:
    """Persons to train and evaluate on: see :func:`open_data`.

    Attributes:
        pose: keypoints and crop.
        train_people, eval_people: the boxes.
        truth: what evaluation compares with.
    """

    def __init__(
        self,
        name: str,
        parts: tuple[Coco, Coco],
        pose: PoseSpec,
        people: tuple[list[Person], list[Person]],
        truth: Truth,
        *,
        batch_size: int,
        eval_batch_size: int,
        workers: int,
        seed: int,
        bad_images: BadImages,
        loader_timeout: float,
    ) -> None:
        self.name, self.pose, self.truth = name, pose, truth
        self.train_people, self.eval_people = people
        self.batch_size, self.eval_batch_size, self.workers, self.seed = batch_size, eval_batch_size, workers, seed
        self.bad_images, self.loader_timeout = bad_images, loader_timeout
        self._pictures = tuple(len(part.pictures) for part in parts)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of a crop."""
        return self.pose.image_size

    @property
    def train_size(self) -> int:
        return len(self.train_people)

    @property
    def eval_size(self) -> int:
        return len(self.eval_people)

    @property
    def description(self) -> str:
        height, width = self.image_size
        return (
            f"{self.name}: {self.pose.category}, {len(self.pose.names)} keypoints, {self.train_size:,} boxes in "
            f"{self._pictures[0]:,} pictures to train on, {self.eval_size:,} in {self._pictures[1]:,} to evaluate on, "
            f"crops of {height}x{width}"
        )

    def network(self, spec: ModelSpec, *, pretrained: bool = False, weights: Path | None = None) -> nn.Module:
        """The network for these keypoints."""
        return build_model(
            spec,
            len(self.pose.names),
            pretrained=pretrained,
            image_size=self.image_size,
            argument="num_keypoints",
            weights=weights,
        )

    def first_picture(self) -> Image:
        """The first person's box, cut out of its picture."""
        person = self.train_people[0]
        x1, y1, x2, y2 = (round(side) for side in person.box)
        return person.picture.decode().crop((x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)))

    def task(self, options: KeypointOptions, batch_size: int) -> Keypoints:
        """Keypoints of this category, compared with these annotations."""
        from dynaconv.tasks.keypoints.task import Keypoints

        return Keypoints(self.pose, options, truth=self.truth)

    def training_batches(
        self, options: KeypointOptions, *, processes: int = 1, process: int = 0, device: torch.device | str = "cpu"
    ) -> Batches:
        """One process's share of the training batches; ``set_epoch`` chooses the epoch."""
        return crop_batches(
            Crops(self.train_people, self.pose, options.augment),
            TrainBatches(self.train_size, self.batch_size, seed=self.seed, processes=processes, process=process),
            self.bad_images,
            seed=self.seed,
            workers=self.workers,
            timeout=self.loader_timeout,
            device=device,
        )

    def evaluation_batches(
        self, *, processes: int = 1, process: int = 0, device: torch.device | str = "cpu"
    ) -> Batches:
        """One process's share of the evaluation batches."""
        return crop_batches(
            Crops(self.eval_people, self.pose),
            EvaluationBatches(self.eval_size, self.eval_batch_size, processes=processes, process=process),
            self.bad_images,
            workers=self.workers,
            timeout=self.loader_timeout,
            device=device,
        )

    def about(self) -> dict[str, Any]:
        """Keypoints and crop: what is needed to use weights trained on this data."""
        return {"pose": self.pose.model_dump(mode="json")}

    def facts(self, options: KeypointOptions) -> dict[str, Any]:
        """What must be the same when a run is resumed, beside :meth:`about`."""
        return {
            "augment": options.augment.model_dump(mode="json"),
            "training boxes and keypoints": digest(self.train_people),
            "evaluation boxes and keypoints": digest(self.eval_people),
        }

    def baseline(self) -> dict[str, float]:
        """Those of the mean pose of the training boxes, placed into every box."""
        return mean_pose_precision(self.train_people, self.eval_people, self.truth)

    def other_loader(self, options: Any, device: torch.device) -> None:
        """There is none."""
        return


def digest(people: Sequence[Person]) -> str:
    """Of the pictures' names, boxes and keypoints."""
    whole = hashlib.sha256()
    for person in people:
        whole.update(f"{person.picture.path.name} {person.box} {person.score} ".encode())
        whole.update(person.keypoints.tobytes())
    return whole.hexdigest()[:16]


def open_data(
    name: str,
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
    category: str | None = None,
    sigmas: float | Sequence[float] | None = None,
    flip_pairs: Sequence[Sequence[str]] | None = None,
    upper_body: Sequence[str] | None = None,
    padding: float | None = None,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    boxes: str | Path | None = None,
    box_score: float = 0.0,
    loader_timeout: float = 120.0,
) -> KeypointData:
    """Open annotation files in COCO's format.

    Args:
        name: a folder with annotation files, or one file, of which 20 % of the pictures is held out; see
            :func:`dynaconv.data.coco_splits.open_coco`.
        image_size: height and width of the crops, 256x192 if ``None``.
        batch_size: persons of one optimizer step over all processes.
        category: whose keypoints; needed if several categories have them.
        sigmas, flip_pairs, upper_body, padding, mean, std: see :func:`~dynaconv.tasks.keypoints.pose.make_pose`.
        boxes: a COCO results file of a person detector to evaluate with; the annotated boxes if ``None``.
        box_score: least score of a detected box.
        eval_batch_size, workers, seed, bad_images, max_bad_images, loader_timeout: as for classification.

    Raises:
        UserError: no such data; nobody has keypoints in it; a size that does not fit.
    """
    check_opening(
        batch_size=batch_size,
        eval_batch_size=eval_batch_size,
        workers=workers,
        seed=seed,
        bad_images=bad_images,
        max_bad_images=max_bad_images,
        loader_timeout=loader_timeout,
    )
    train, evaluation = open_coco(name, keypoints=True, train_split=train_split, eval_split=eval_split)
    label, chosen = category_with_keypoints(train, category)
    assert chosen.skeleton is not None
    size = None if image_size is None else height_and_width(image_size)
    pose = make_pose(
        chosen.name,
        chosen.skeleton,
        sigmas=sigmas,
        flip_pairs=flip_pairs,
        upper_body=upper_body,
        image_size=size,
        padding=padding,
        mean=mean,
        std=std,
    )
    train_people = annotated(train, label)
    if not train_people:
        raise UserError(f"{train.path}: no {chosen.name} has a labelled keypoint; there is nothing to train on.")
    found = annotated(evaluation, label) if boxes is None else detected(boxes, evaluation, chosen, box_score)
    cap = default_cap(len(train_people) + len(found)) if max_bad_images is None else max_bad_images
    return KeypointData(
        str(name),
        (train, evaluation),
        pose,
        (train_people, found),
        Truth(evaluation, label, pose, found, suppress=boxes is not None),
        batch_size=batch_size,
        eval_batch_size=eval_batch_size or batch_size,
        workers=workers,
        seed=seed,
        bad_images=BadImages(bad_images, cap),
        loader_timeout=loader_timeout,
    )
