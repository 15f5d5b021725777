"""Augmentation of a person's crop: half of the body, scale, rotation, mirroring."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from pydantic import Field, model_validator
from typing_extensions import Self

from dynaconv.data import Frozen
from dynaconv.tasks.keypoints.geometry import CENTRE, Matrix, Region, crop_matrix, region_of
from dynaconv.tasks.keypoints.pose import PoseSpec

HALF_FROM = 8  # labelled keypoints that a person must have more than
HALF_LEAST = 3  # labelled keypoints of the half
HALF_PADDING = 1.5


class PoseAugment(Frozen):
    """Random changes of a training crop (Chen et al. 2020, section 6, whose text gives the ranges).

    Scale and rotation are drawn evenly from their ranges; the code of Sun et al. 2019, whose set-up the paper follows,
    draws them from a normal distribution that is cut there.

    Attributes:
        rotation: up to so many degrees to either side.
        scale: range of the crop's size, as a multiple.
        hflip: probability of mirroring; left and right keypoints change places.
        half_body: probability of showing the upper or the lower half of a body alone, where more than 8 keypoints are
            labelled and the data tells which are the upper ones.
    """

    rotation: float = Field(default=45.0, ge=0, le=180)
    scale: tuple[float, float] = (0.65, 1.35)
    hflip: float = Field(default=0.5, ge=0, le=1)
    half_body: float = Field(default=0.3, ge=0, le=1)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale is {self.scale}; expected two positive numbers, the smaller first")
        return self

    def matrix(self, region: Region, keypoints: np.ndarray[Any, Any], pose: PoseSpec) -> tuple[Matrix, bool]:
        """A random crop of this region: the map to it, and whether it is mirrored.

        Draws from Python's global generator.

        Args:
            keypoints: ``(K, 3)``: x, y, visibility.
        """
        if pose.upper and random.random() < self.half_body:
            region = half_body(keypoints, pose) or region
        factor = random.uniform(*self.scale)
        angle = random.uniform(-self.rotation, self.rotation)
        mirror = random.random() < self.hflip
        region = region._replace(width=region.width * factor, height=region.height * factor)
        return crop_matrix(region, pose.image_size, rotation=angle, mirror=mirror), mirror


def half_body(keypoints: np.ndarray[Any, Any], pose: PoseSpec) -> Region | None:
    """The region around the labelled keypoints of the upper or the lower body, drawn at random.

    ``None`` for a person with few labelled keypoints. Source: the code of Sun et al. 2019 (HRNet).
    """
    labelled = keypoints[:, 2] > 0
    if labelled.sum() <= HALF_FROM:
        return None
    upper = np.zeros(len(keypoints), bool)
    upper[list(pose.upper)] = True
    halves = [keypoints[labelled & half] for half in (upper, ~upper)]
    if random.random() < 0.5:
        halves.reverse()
    chosen = next((half for half in halves if len(half) >= HALF_LEAST), None)
    if chosen is None:
        return None
    (x1, y1), (x2, y2) = chosen[:, :2].min(axis=0) + CENTRE, chosen[:, :2].max(axis=0) + CENTRE
    whole = region_of((float(x1), float(y1), float(x2), float(y2)), pose.aspect, HALF_PADDING)
    centre = chosen[:, :2].mean(axis=0) + CENTRE
    return whole._replace(x=float(centre[0]), y=float(centre[1]))
