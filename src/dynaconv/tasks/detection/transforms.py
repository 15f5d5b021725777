"""What is done to a picture and its boxes: the augmentation of the SSD paper, and a square for the network.

Source: Liu et al. 2016, section 2.2 and 3.6 (zooming out), by torchvision's transforms v2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from dynaconv.tasks.task import TaskOptions

FILL = (123, 117, 104)  # round a picture that is zoomed out: ImageNet's mean colour, as in the paper
LARGEST = 2  # times the network's side: larger pictures are scaled down before anything is done to them
SMALLEST = (
    4  # pixels of a side, below which nothing is cropped: torchvision's crop divides by 0.3 times it, rounded down
)

Target = dict[str, Tensor]


class DetectionOptions(TaskOptions):
    """What detection can be told beside the loop's settings: the augmentation.

    Attributes:
        distort: change brightness, contrast, saturation, hue and the order of the channels, each with probability 0.5.
        zoom_out: probability of laying the picture on a larger canvas (up to 4 times its sides).
        iou_crop: cut out a part that has at least one box's centre in it, or nothing.
        hflip, vflip: probability of mirroring.
    """

    distort: bool = True
    zoom_out: float = Field(default=0.5, ge=0, le=1)
    iou_crop: bool = True
    hflip: float = Field(default=0.5, ge=0, le=1)
    vflip: float = Field(default=0.0, ge=0, le=1)


def square(image: Image.Image, size: int) -> Tensor:
    """The whole picture, squeezed into ``(3, size, size)`` uint8; as evaluation and prediction see it."""
    return _pixels(image.resize((size, size), Image.Resampling.BILINEAR))


def training_transform(
    options: DetectionOptions, size: int
) -> Callable[[Image.Image, Tensor, Tensor], tuple[Tensor, Target]]:
    """From a picture, boxes ``(n, 4)`` as corners in its pixels and labels ``(n,)`` to an augmented example.

    Returns:
        a function to an image ``(3, size, size)`` uint8 and ``{"boxes": (m, 4) float32, "labels": (m,)}`` in pixels of
        that image; m may be 0. Boxes whose centre is cut off, or that become less than a pixel wide or high, are left
        out.
    """
    steps: list[Any] = []
    if options.distort:
        steps.append(v2.RandomPhotometricDistort())
    if options.zoom_out:
        steps.append(v2.RandomZoomOut(fill=FILL, p=options.zoom_out))
    if options.iou_crop:
        steps.append(_Crop())
    steps += [v2.RandomHorizontalFlip(options.hflip), v2.RandomVerticalFlip(options.vflip)]
    steps += [v2.Resize((size, size), antialias=True), v2.ClampBoundingBoxes(), v2.SanitizeBoundingBoxes()]
    augment = v2.Compose(steps)

    def transform(image: Image.Image, boxes: Tensor, labels: Tensor) -> tuple[Tensor, Target]:
        image, boxes = _scaled_down(image, boxes, LARGEST * size)
        on_canvas = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(image.height, image.width))
        pixels, target = augment(tv_tensors.Image(_pixels(image)), {"boxes": on_canvas, "labels": labels})
        plain = {name: value.as_subclass(Tensor) for name, value in target.items()}
        return pixels.as_subclass(Tensor), plain

    return transform


class _Crop(v2.RandomIoUCrop):
    """torchvision's, which divides by zero (0.3 times a side, rounded down) in pictures of one to three pixels a side;
    they stay whole here."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = next(one.shape[-2:] for one in flat_inputs if isinstance(one, tv_tensors.Image))
        return {} if min(height, width) < SMALLEST else super().make_params(flat_inputs)


def _pixels(image: Image.Image) -> Tensor:
    pixels: Tensor = v2.functional.pil_to_tensor(image)
    return pixels


def _scaled_down(image: Image.Image, boxes: Tensor, largest: int) -> tuple[Image.Image, Tensor]:
    """Zooming out makes a picture 16 times as large: memory would have no bound."""
    scale = largest / max(image.size)
    if scale >= 1:
        return image, boxes
    width, height = (max(1, round(side * scale)) for side in image.size)
    factors = torch.tensor([width / image.width, height / image.height] * 2)
    return image.resize((width, height), Image.Resampling.BILINEAR), boxes * factors
