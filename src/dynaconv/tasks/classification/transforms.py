"""Preprocessing and augmentation of pictures, in training and in evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator
from typing_extensions import Self

from dynaconv.data import BadImage, Frozen
from dynaconv.data.opening import LARGEST_SIDE
from dynaconv.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

MOST_RATIO = 100.0
LEAST_CROP = 0.01  # of the picture after resizing
MOST_RESIZED = 50_000_000  # pixels of a picture after resizing, before cropping
Transform = Callable[["Image"], "Tensor"]


class Preprocess(Frozen):
    """How evaluation and prediction turn a picture into the network's input; saved with the weights.

    The short side is resized to ``image_size / crop_pct``, the centre is cropped, then ``(x / 255 - mean) / std``.
    """

    image_size: int = Field(gt=0, le=LARGEST_SIDE)
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bicubic"
    crop_pct: float = Field(default=0.875, ge=LEAST_CROP, le=1)

    @model_validator(mode="after")
    def _can_be_computed(self) -> Self:
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std) <= 0:
            raise ValueError(f"mean is {self.mean} and std {self.std}; expected finite numbers, and std above 0")
        return self


class Augment(Frozen):
    """Augmentation of training pictures. ``None`` leaves the choice to the data set (digits are never mirrored).

    Attributes:
        crop: ``resized`` a random part of the picture, scaled (ImageNet's); ``pad`` the whole picture, shifted by up to
            an eighth of its size (CIFAR's); ``none`` the whole picture.
        scale, ratio: area and aspect of the random part, for ``resized``.
        hflip, vflip: probability of mirroring.
        color_jitter: strength of random brightness, contrast and saturation. Off under ``auto_augment``, as in timm.
        auto_augment: a policy in timm's notation, e.g. ``original`` (AutoAugment for ImageNet), ``rand-m9-mstd0.5``.
        random_erasing: probability of erasing a rectangle.
        interpolation: of resizing in training.
    """

    crop: Literal["resized", "pad", "none"] | None = None
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    hflip: float | None = Field(default=None, ge=0, le=1)
    vflip: float = Field(default=0.0, ge=0, le=1)
    color_jitter: float = Field(default=0.0, ge=0)
    auto_augment: str | None = None
    random_erasing: float = Field(default=0.0, ge=0, le=1)
    interpolation: Literal["nearest", "bilinear", "bicubic", "random"] = "bilinear"

    @field_validator("scale", "ratio")
    @classmethod
    def _a_range(cls, value: tuple[float, float], info: ValidationInfo) -> tuple[float, float]:
        low, high = value
        most = 1.0 if info.field_name == "scale" else MOST_RATIO
        if not 0 < low <= high <= most:
            raise ValueError(f"{info.field_name} is {value}; expected two numbers with 0 < first <= second <= {most:g}")
        return value


def training_transform(preprocess: Preprocess, augment: Augment) -> Transform:
    """Random crop and flips, then colours, then to a tensor.

    Shapes: PIL RGB of any size -> ``(3, S, S)`` uint8; float32 and normalised when pixels are erased (they are erased
    to noise of the normalised range).
    """
    from timm.data import create_transform
    from torchvision.transforms import Compose

    _check_policy(augment.auto_augment)
    crop, colours, final = create_transform(
        (3, preprocess.image_size, preprocess.image_size),
        is_training=True,
        scale=augment.scale,
        ratio=augment.ratio,
        hflip=augment.hflip or 0.0,
        vflip=augment.vflip,
        color_jitter=augment.color_jitter,
        auto_augment=augment.auto_augment,
        interpolation=augment.interpolation,
        mean=preprocess.mean,
        std=preprocess.std,
        re_prob=augment.random_erasing,
        re_mode="pixel",
        use_prefetcher=augment.random_erasing == 0,
        separate=True,
    )
    if augment.crop != "resized":
        crop = Compose(_whole_picture(preprocess, augment))
    return Compose([crop, colours, final])


def _check_policy(policy: str | None) -> None:
    """Raise UserError for a policy that timm does not know; timm itself asserts."""
    if policy is None:
        return
    from timm.data.auto_augment import augment_and_mix_transform, auto_augment_transform, rand_augment_transform

    makers = {"rand": rand_augment_transform, "augmix": augment_and_mix_transform}
    make = makers.get(policy.split("-")[0], auto_augment_transform)
    try:
        make(policy, {})
    except (AssertionError, ValueError, KeyError) as error:
        raise UserError(
            f"auto_augment is {policy!r}, which timm does not know ({error or 'a part of it'}); expected a policy such "
            "as 'original', 'rand-m9-mstd0.5' or 'augmix-m3-w3'"
        ) from error


class ResizableTo:
    """Refuses pictures that would become too large when the short side is resized: 20,000x1 would give 5,120,000x256.

    Args:
        side: to which the short side is resized.
    """

    def __init__(self, side: int) -> None:
        self.side = side

    def __call__(self, image: Image) -> Image:
        short, long = sorted(image.size)
        pixels = self.side * self.side * long // max(short, 1)
        most = max(MOST_RESIZED, 8 * self.side * self.side)
        if pixels > most:
            what = f"{image.width}x{image.height} pixels would be resized to {pixels:,}; at most {most:,} are"
            raise BadImage("picture", what)
        return image


def evaluation_transform(preprocess: Preprocess) -> Transform:
    """Resize, crop the centre. Shapes: PIL RGB of any size -> ``(3, S, S)`` uint8.

    Raises:
        BadImage: when called, for a picture so long and thin that it would not fit into memory after resizing.
    """
    from timm.data import create_transform
    from torchvision.transforms import Compose

    plain = create_transform(
        (3, preprocess.image_size, preprocess.image_size),
        interpolation=preprocess.interpolation,
        crop_pct=preprocess.crop_pct,
        use_prefetcher=True,
    )
    return Compose([ResizableTo(int(preprocess.image_size / preprocess.crop_pct)), plain])


def _whole_picture(preprocess: Preprocess, augment: Augment) -> list[Any]:
    from torchvision import transforms

    size = preprocess.image_size
    name = "bilinear" if augment.interpolation == "random" else augment.interpolation
    steps: list[Any] = [
        ResizableTo(size),
        transforms.Resize(size, interpolation=transforms.InterpolationMode(name)),
        transforms.CenterCrop(size),
    ]
    if augment.crop == "pad":
        steps.append(transforms.RandomCrop(size, padding=padding(size)))
    if augment.hflip:
        steps.append(transforms.RandomHorizontalFlip(augment.hflip))
    if augment.vflip:
        steps.append(transforms.RandomVerticalFlip(augment.vflip))
    return steps


def padding(size: int) -> int:
    """By how much the crop ``pad`` shifts a picture of this size at most: an eighth of it."""
    return max(1, size // 8)
