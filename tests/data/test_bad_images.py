"""Unreadable images: an error, or skipped, counted, named and capped."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from dynaconv.errors import RunError, UserError
from dynaconv.tasks.classification import Augment, open_data
from tasks.pictures import write_folder

BROKEN = {"html.jpg": b"<html>", "empty.png": b"", "cut.png": b"\x89PNG\r\n\x1a\n\0\0\0"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sixteen pictures to train on and eight to evaluate on, and three broken ones beside each."""
    write_folder(tmp_path)
    for split in ("train", "val"):
        for name, content in BROKEN.items():
            (tmp_path / split / "cat" / name).write_bytes(content)
    return tmp_path


@pytest.mark.parametrize("workers", [0, 2])
def test_error_names_the_image_and_the_reason(folder: Path, workers: int) -> None:
    data = open_data(str(folder), image_size=8, batch_size=4, workers=workers)
    with pytest.raises(UserError, match=r"cat/.*(jpg|png): it is empty or not an image\..*--bad-images skip"):
        list(data.eval_loader)
    with pytest.raises(UserError, match="--bad-images skip"):
        list(data.train_loader)
    data.eval_loader.close()
    data.train_loader.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_skipped_in_evaluation(folder: Path, workers: int, caplog: pytest.LogCaptureFixture) -> None:
    data = open_data(str(folder), image_size=8, batch_size=4, workers=workers, bad_images="skip")
    with caplog.at_level(logging.WARNING, logger="dynaconv"):
        assert sum(len(labels) for _, labels in data.eval_loader) == 8
        assert sum(len(labels) for _, labels in data.eval_loader) == 8
    data.eval_loader.close()
    assert sorted(Path(name).name for name in data.bad_images.reasons) == sorted(BROKEN)
    assert all(caplog.text.count(name) == 1 for name in BROKEN), "each is named once"


def test_replaced_in_training(folder: Path) -> None:
    data = open_data(str(folder), image_size=8, batch_size=19, bad_images="skip")
    ((images, labels),) = list(data.train_loader)
    assert len(images) == len(labels) == 19
    assert len(data.bad_images.reasons) == 3
    again = list(open_data(str(folder), image_size=8, batch_size=19, workers=1, bad_images="skip").train_loader)
    assert (again[0][0] == images).all(), "which image takes the place does not depend on the workers"


def test_stops_above_the_cap(folder: Path) -> None:
    data = open_data(str(folder), image_size=8, bad_images="skip", max_bad_images=2)
    with pytest.raises(RunError, match=r"3 images could not be read, more than the 2 that may be skipped"):
        list(data.eval_loader)


def test_nothing_readable_at_all(tmp_path: Path) -> None:
    write_folder(tmp_path)
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"")
    data = open_data(str(tmp_path), image_size=8, bad_images="skip", max_bad_images=1000)
    with pytest.raises(RunError, match="no readable image"):
        list(data.training_batches(Augment()))
