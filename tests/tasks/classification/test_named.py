"""Data sets by timm's names, from local files."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from dynaconv.errors import UserError
from dynaconv.tasks.classification import open_data
from tasks.pictures import write_folder


def write_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CIFAR-10 in its own format with 10 pictures a file; torchvision checks sums, of the real one."""
    from torchvision.datasets import CIFAR10

    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]:
        pixels = random.integers(0, 255, (10, 3072), dtype=np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": list(range(10))}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class {number}" for number in range(10)]}))
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)


def test_torchvisions_by_timms_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10(tmp_path, monkeypatch)
    data = open_data("torch/cifar10", root=tmp_path, batch_size=25)
    assert (data.train_size, data.eval_size, data.image_size) == (50, 10, 32)
    assert data.classes[3] == "class 3"
    assert [tuple(images.shape) for images, _ in data.train_loader] == [(25, 3, 32, 32)] * 2
    assert sum(len(labels) for _, labels in data.eval_loader) == 10


@pytest.mark.slow
def test_hugging_face_from_a_local_folder(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    pictures = write_folder(tmp_path / "pictures")
    data = open_data(f"hfds/{pictures}", root=tmp_path / "cache", image_size=8, batch_size=4)
    local = open_data(str(pictures), image_size=8, batch_size=4)
    assert (data.classes, data.train_size, data.eval_size) == (["cat", "dog"], 16, 8)
    ours = sorted(float(images.sum()) for image, _ in local.eval_loader for images in image)
    theirs = sorted(float(images.sum()) for image, _ in data.eval_loader for images in image)
    assert theirs == pytest.approx(ours, abs=1e-4)


@pytest.mark.slow
def test_hugging_face_without_a_network(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    with pytest.raises(UserError, match=r"hfds/nobody/nothing, split 'train', cannot be opened: .*the network"):
        open_data("hfds/nobody/nothing", root=tmp_path)
