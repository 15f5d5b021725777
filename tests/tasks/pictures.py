"""Folders of small pictures for the tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_pictures(folder: Path, count: int, colour: int = 0, size: int = 12) -> list[Path]:
    """``count`` PNG files of one colour with noise; the file's number is in its corner pixel."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(colour)
    paths = []
    for number in range(count):
        pixels = random.integers(0, 60, (size, size, 3), dtype=np.uint8)
        pixels[..., colour % 3] += 150
        pixels[0, 0] = number
        path = folder / f"{number:03d}.png"
        Image.fromarray(pixels).save(path)
        paths.append(path)
    return paths


def write_folder(root: Path, train: int = 8, held: int = 4, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    """``root/train`` and ``root/val`` with these classes."""
    for label, name in enumerate(classes):
        write_pictures(root / "train" / name, train, label)
        write_pictures(root / "val" / name, held, label)
    return root
