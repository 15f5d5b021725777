"""The augmentation keeps boxes on what they show, whatever the picture."""

from __future__ import annotations

import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from dynaconv.tasks.detection.transforms import DetectionOptions, square, training_transform

PLAIN = {"distort": False, "zoom_out": 0.0, "iou_crop": False, "hflip": 0.0}
RED = (255, 0, 0)


def boxed(*corners: float) -> tuple[Tensor, Tensor]:
    boxes = torch.tensor(corners, dtype=torch.float64).reshape(-1, 4)
    return boxes, torch.arange(1, len(boxes) + 1)


def with_red(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    """Grey, with a red rectangle exactly in the box."""
    picture = Image.new("RGB", size, (90, 90, 90))
    ImageDraw.Draw(picture).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=RED)
    return picture


def red_box(image: Tensor) -> list[float]:
    red = (image[0].float() - image[1].float() - image[2].float()) > 0
    rows, columns = (torch.nonzero(red.any(dim=axis)).flatten() for axis in (1, 0))
    return [float(end) for end in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)]


@pytest.mark.parametrize(
    "options",
    [{}, {"hflip": 1.0}, {"vflip": 1.0}, {"zoom_out": 1.0}, {"hflip": 1.0, "zoom_out": 1.0, "vflip": 0.5}],
    ids=str,
)
def test_a_box_stays_on_its_object(options: dict[str, float]) -> None:
    transform = training_transform(DetectionOptions.of({**PLAIN, **options}), 100)
    for draw in range(5):
        torch.manual_seed(draw)
        image, target = transform(with_red((160, 120), (30, 40, 110, 90)), *boxed(30, 40, 110, 90))
        assert image.shape == (3, 100, 100)
        assert target["boxes"][0].tolist() == pytest.approx(red_box(image), abs=2.5)


def test_a_crop_keeps_the_boxes_with_their_labels() -> None:
    """The second box's centre is often cut off: then its label goes too, and the first keeps its own."""
    transform = training_transform(DetectionOptions.of({**PLAIN, "iou_crop": True}), 100)
    seen = set()
    for draw in range(40):
        torch.manual_seed(draw)
        image, target = transform(with_red((160, 120), (10, 10, 50, 60)), *boxed(10, 10, 50, 60, 120, 80, 150, 110))
        labels = target["labels"].tolist()
        seen.add(tuple(labels))
        assert len(labels) == len(target["boxes"])
        if 1 in labels:
            assert target["boxes"][labels.index(1)].tolist() == pytest.approx(red_box(image), abs=2.5)
        assert bool((target["boxes"][:, 2:] > target["boxes"][:, :2]).all())
    assert {(1, 2), (1,)} <= seen


def test_everything_at_once_gives_boxes_inside_the_image() -> None:
    transform = training_transform(DetectionOptions(vflip=0.5), 64)
    for draw in range(60):
        torch.manual_seed(draw)
        image, target = transform(with_red((90, 70), (5, 5, 40, 40)), *boxed(5, 5, 40, 40, 50, 10, 90, 70))
        assert (image.dtype, image.shape, type(image)) == (torch.uint8, (3, 64, 64), Tensor)
        assert type(target["boxes"]) is Tensor
        assert float(target["boxes"].min() if len(target["boxes"]) else 0) >= 0
        assert float(target["boxes"].max() if len(target["boxes"]) else 0) <= 64


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (2, 500), (20_000, 1), (1, 20_000), (4000, 3000)], ids=str)
def test_pictures_of_any_shape(size: tuple[int, int]) -> None:
    transform = training_transform(DetectionOptions(zoom_out=1.0), 64)
    torch.manual_seed(0)
    image, target = transform(Image.new("RGB", size), *boxed(0, 0, *size))
    assert image.shape == (3, 64, 64)
    assert len(target["boxes"]) <= 1
    assert square(Image.new("RGB", size), 64).shape == (3, 64, 64)


def test_a_picture_without_boxes_stays_one() -> None:
    transform = training_transform(DetectionOptions(), 64)
    image, target = transform(Image.new("RGB", (90, 70)), *boxed())
    assert image.shape == (3, 64, 64)
    assert target["boxes"].shape == (0, 4)
    assert target["labels"].shape == (0,)


def test_a_box_of_less_than_a_pixel_is_left_out() -> None:
    transform = training_transform(DetectionOptions.of(PLAIN), 50)
    _, target = transform(Image.new("RGB", (500, 500)), *boxed(10, 10, 15, 200, 10, 10, 200, 200))
    assert target["labels"].tolist() == [2]
