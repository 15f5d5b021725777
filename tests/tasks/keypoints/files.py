"""Small annotation files in COCO's format, with pictures, for the tests of keypoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

NAMES = ["nose", "left_hand", "right_hand", "tail"]
SIGMAS = [0.05, 0.1, 0.1, 0.05]
CATEGORY = {"id": 3, "name": "puppet", "keypoints": NAMES, "skeleton": [[1, 2], [1, 3], [1, 4]], "sigmas": SIGMAS}
SIZE = (64, 48)  # width, height


def puppet(number: int, image: int, **changes: Any) -> dict[str, Any]:
    """An annotation: a box of 24x32 pixels with keypoints in it."""
    x, y = 10.0 + number % 7, 8.0 + number % 5
    points = [(x + 12, y + 4), (x + 4, y + 14), (x + 20, y + 14), (x + 12, y + 28)]
    keypoints = [value for px, py in points for value in (px, py, 2)]
    return {
        "id": number,
        "image_id": image,
        "category_id": 3,
        "bbox": [x, y, 24, 32],
        "area": 24 * 32,
        "iscrowd": 0,
        "keypoints": keypoints,
        "num_keypoints": 4,
        **changes,
    }


def content(count: int, annotations: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """A whole file of ``count`` pictures, with one puppet in each if no annotations are given."""
    made = [puppet(number, number) for number in range(1, count + 1)] if annotations is None else annotations
    images = [
        {"id": number, "file_name": f"{number:06d}.png", "width": SIZE[0], "height": SIZE[1]}
        for number in range(1, count + 1)
    ]
    return {"images": images, "annotations": made, "categories": [{"id": 1, "name": "stage"}, CATEGORY]}


def write_data(root: Path, train: Any = None, held: Any = None) -> Path:
    """A folder with ``keypoints_train.json``, ``keypoints_val.json`` and ``images/``; six and three puppets."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for name, whole in (("train", train or content(6)), ("val", held or content(3))):
        (root / f"keypoints_{name}.json").write_text(json.dumps(whole))
        for image in whole["images"]:
            pixels = random.integers(0, 255, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "images" / image["file_name"])
    return root
