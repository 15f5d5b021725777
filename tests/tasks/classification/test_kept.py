"""Kept pictures are the same pictures, bit for bit, and read once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dynaconv.tasks.classification import Augment, ImageData, open_data
from dynaconv.tasks.classification.kept import KeptImages, keepable, training_on_pixels
from dynaconv.tasks.classification.transforms import Preprocess


def pictures(root: Path, side: int, odd: int = 0) -> Path:
    """Noise of ``side`` pixels, of which ``odd`` of every class have another size."""
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for label in ("cat", "dog"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for index in range(12):
                size = side + 5 if index < odd else side
                noise = random.integers(0, 256, (size, size, 3), dtype=np.uint8)
                Image.fromarray(noise).save(folder / f"{index:03}.png")
    return root


def opened(root: Path, keep: bool, **preprocess: object) -> ImageData:
    return open_data(str(root), image_size=16, crop_pct=1.0, batch_size=4, seed=3, keep_pictures=keep, **preprocess)


@pytest.mark.parametrize("odd", [0, 4])
@pytest.mark.parametrize(
    "augment", [Augment(crop="pad", hflip=0.5), Augment(crop="none", hflip=0.5, vflip=0.5), Augment(crop="pad")]
)
def test_the_same_batches_in_every_epoch(tmp_path: Path, augment: Augment, odd: int) -> None:
    root = pictures(tmp_path, 16, odd)
    kept, read = (opened(root, keep).training_batches(augment) for keep in (True, False))
    for epoch in range(3):
        kept.set_epoch(epoch)
        read.set_epoch(epoch)
        for (ours, labels), (theirs, others) in zip(kept, read, strict=True):
            assert torch.equal(ours, theirs)
            assert torch.equal(labels, others)


def test_the_same_evaluation(tmp_path: Path) -> None:
    root = pictures(tmp_path, 16, 4)
    for ours, theirs in zip(
        opened(root, True).evaluation_batches(), opened(root, False).evaluation_batches(), strict=True
    ):
        assert torch.equal(ours[0], theirs[0])


def test_they_are_read_once(tmp_path: Path) -> None:
    root = pictures(tmp_path, 16)
    batches = opened(root, True).training_batches(Augment(crop="pad"))
    first = [images for images, _ in batches]
    for file in root.rglob("*.png"):
        file.unlink()
    again = [images for images, _ in batches]
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


def test_what_needs_the_picture_itself_is_read_every_time(tmp_path: Path) -> None:
    preprocess = Preprocess(image_size=16, mean=(0.5,) * 3, std=(0.5,) * 3)
    for augment in (
        Augment(crop="resized"),
        Augment(crop="pad", color_jitter=0.4),
        Augment(crop="pad", auto_augment="original"),
        Augment(crop="pad", random_erasing=0.5),
    ):
        assert training_on_pixels(preprocess, augment) is None
    root = pictures(tmp_path, 16)
    jittered = Augment(crop="pad", color_jitter=0.4)
    kept, read = (opened(root, keep).training_batches(jittered) for keep in (True, False))
    assert all(torch.equal(ours[0], theirs[0]) for ours, theirs in zip(kept, read, strict=True))


def test_large_pictures_and_large_sets_are_not_kept(tmp_path: Path) -> None:
    source = opened(pictures(tmp_path, 16), True).training_source
    assert keepable(source, 96)
    assert not keepable(source, 97)

    class Many:
        def __len__(self) -> int:
            return 200_000

    assert not keepable(Many(), 32)  # type: ignore[arg-type]
    assert KeptImages(source, lambda image: torch.zeros(1), lambda pixels: pixels, 16)[0][0].shape == (3, 16, 16)
