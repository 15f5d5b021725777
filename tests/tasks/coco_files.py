"""Small data sets in COCO's format for the tests: bright squares (class 4) and discs (class 9) on noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

CATEGORIES = [{"id": 9, "name": "disc"}, {"id": 4, "name": "square"}]
WIDTH, HEIGHT = 80, 60


def write_coco(root: Path, train: int = 8, held: int = 4) -> Path:
    """``instances_train.json`` and ``instances_val.json`` with their pictures in ``images/``."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    for name, first, count in (("train", 0, train), ("val", train, held)):
        write_file(root, name, *pictures_of(root, first, count))
    return root


def write_file(root: Path, name: str, images: list[Any], annotations: list[Any]) -> Path:
    """One annotation file."""
    path = root / f"instances_{name}.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": CATEGORIES}))
    return path


def pictures_of(root: Path, first: int, count: int) -> tuple[list[Any], list[Any]]:
    """Write pictures with one to three objects each; their records, ids from 100 up."""
    images, annotations = [], []
    for number in range(first, first + count):
        random = np.random.default_rng(number)
        picture = Image.fromarray(random.integers(0, 60, (HEIGHT, WIDTH, 3), dtype=np.uint8))
        pencil = ImageDraw.Draw(picture)
        images.append({"id": 100 + number, "file_name": f"{number}.png", "width": WIDTH, "height": HEIGHT})
        for place in range(1 + number % 3):
            side = int(random.integers(14, 22))
            x, y = place * 26 + int(random.integers(0, 4)), int(random.integers(0, HEIGHT - side))
            box = (x, y, x + side - 1, y + side - 1)
            square = bool(random.integers(0, 2))
            (pencil.rectangle if square else pencil.ellipse)(box, fill=(250, 60, 60) if square else (60, 60, 250))
            annotations.append(record(len(annotations) + 1, 100 + number, [x, y, side, side], 4 if square else 9))
        picture.save(root / "images" / f"{number}.png")
    return images, annotations


def record(number: int, image: int, bbox: Any, category: int = 4, **more: Any) -> dict[str, Any]:
    """An annotation."""
    return {"id": number, "image_id": image, "category_id": category, "bbox": bbox, "iscrowd": 0, **more}
