"""Which data set a name means, and what is said about those that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dynaconv.errors import UserError
from dynaconv.tasks.classification import Augment, open_data
from tasks.pictures import write_folder, write_pictures


def test_digits() -> None:
    data = open_data("digits", batch_size=32)
    assert (data.train_size, data.eval_size, data.channels, data.image_size) == (1438, 359, 3, 32)
    assert data.classes == [str(digit) for digit in range(10)]
    images, labels = next(iter(data.train_loader))
    assert images.shape == (32, 3, 32, 32)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert "1,438 to train on" in data.description


def test_digits_are_split_evenly_and_always_the_same() -> None:
    one, two = open_data("digits", seed=1), open_data("digits", seed=2)
    assert one.evaluation_source.labels == two.evaluation_source.labels
    counts = torch.bincount(torch.tensor(one.evaluation_source.labels))
    assert counts.min() >= 34
    assert counts.max() <= 37


def test_normalised_by_the_data_sets_own_statistics() -> None:
    data = open_data("digits", image_size=8, batch_size=1438)
    images, _ = next(iter(data.training_batches(Augment(crop="none"))))
    assert abs(float(images.mean())) < 0.02
    assert abs(float(images.std()) - 1) < 0.02


def test_folder_with_val(tmp_path: Path) -> None:
    data = open_data(str(write_folder(tmp_path)), image_size=8, batch_size=4)
    assert (data.classes, data.train_size, data.eval_size) == (["cat", "dog"], 16, 8)
    assert sum(len(labels) for _, labels in data.eval_loader) == 8


@pytest.mark.parametrize("name", ["validation", "valid", "test", "eval"])
def test_other_names_of_the_evaluation_folder(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path)
    (tmp_path / "val").rename(tmp_path / name)
    assert open_data(str(tmp_path), image_size=8).eval_size == 8


def test_folder_of_classes_alone_is_split_and_says_so(tmp_path: Path) -> None:
    for label, name in enumerate(("a", "b")):
        write_pictures(tmp_path / name, 10, label)
    data = open_data(str(tmp_path), image_size=8)
    assert (data.train_size, data.eval_size) == (16, 4)
    assert "a fixed 20 % of every class is held out" in data.description
    train = {data.training_source.name(row) for row in range(16)}
    held = {data.evaluation_source.name(row) for row in range(4)}
    assert not train & held
    assert sorted(data.evaluation_source.labels) == [0, 0, 1, 1]


def test_unknown_name() -> None:
    with pytest.raises(UserError, match=r"no data set 'digit'.*Did you mean 'digits'"):
        open_data("digit")


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no data set .*nowhere"):
        open_data(str(tmp_path / "nowhere"))


def test_file_instead_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="this is a file"):
        open_data(str(tmp_path / "file"))


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no class folders"):
        open_data(str(tmp_path))


def test_pictures_without_class_folders(tmp_path: Path) -> None:
    write_pictures(tmp_path, 3)
    with pytest.raises(UserError, match="holds 3 images beside each other"):
        open_data(str(tmp_path))


def test_one_class_only(tmp_path: Path) -> None:
    write_pictures(tmp_path / "train" / "cat", 3)
    write_pictures(tmp_path / "val" / "cat", 3)
    with pytest.raises(UserError, match=r"one class only \('cat'\)"):
        open_data(str(tmp_path))


def test_class_folders_without_pictures(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "val/a"):
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(UserError, match="no images in them"):
        open_data(str(tmp_path))


def test_evaluation_class_that_training_does_not_know(tmp_path: Path) -> None:
    write_folder(tmp_path)
    write_pictures(tmp_path / "val" / "zebra", 1)
    with pytest.raises(UserError, match="classes that training does not know: zebra"):
        open_data(str(tmp_path))


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("batch_size", 0, "batch_size is 0; expected at least 1"),
        ("workers", -1, "workers is -1"),
        ("image_size", 0, "image_size is 0"),
        ("bad_images", "skp", "bad_images is 'skp'.*Did you mean 'skip'"),
        ("crop_pct", 1.5, "crop_pct is 1.5"),
    ],
)
def test_wrong_options(option: str, value: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_data("digits", **{option: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torch/cifar11", "Did you mean 'cifar10'"),
        ("torch/cifar10", "pass --data-root"),
        ("hfids/some/set", "is a stream"),
        ("tfds/mnist", "is a stream"),
        ("wds/nowhere", "there is no such folder"),
    ],
)
def test_named_sets_that_cannot_be_opened(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_data(name)


def test_torch_set_that_is_not_there_and_not_fetched(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"torch/cifar10 cannot be opened in .*Pass --download"):
        open_data("torch/cifar10", root=tmp_path)


def test_augmentation_reaches_the_pictures() -> None:
    data = open_data("digits", image_size=16, batch_size=64)
    plain = next(iter(data.training_batches(Augment(crop="none"))))[0]
    for change in (
        Augment(crop="pad"),
        Augment(crop="resized"),
        Augment(crop="none", hflip=1.0),
        Augment(crop="none", vflip=1.0),
        Augment(crop="none", random_erasing=1.0),
        Augment(crop="none", auto_augment="rand-m9-mstd0.5"),
        Augment(crop="none", color_jitter=0.9),
    ):
        images, _ = next(iter(data.training_batches(change)))
        assert images.shape == plain.shape
        assert not torch.equal(images, plain), change


def test_erasing_leaves_the_rest_as_it_was() -> None:
    """Erased pictures are normalised by another way (in the worker), which must come to the same."""
    data = open_data("digits", image_size=16, batch_size=64)
    plain = next(iter(data.training_batches(Augment(crop="none"))))[0]
    erased = next(iter(data.training_batches(Augment(crop="none", random_erasing=1.0))))[0]
    kept = (plain - erased).abs().amax(dim=1) < 1e-5
    assert 0.5 < float(kept.float().mean()) < 0.99


def test_digits_are_never_mirrored_unless_asked() -> None:
    assert open_data("digits").resolve(Augment()).hflip == 0
    assert open_data("digits").resolve(Augment(hflip=0.5)).hflip == 0.5
