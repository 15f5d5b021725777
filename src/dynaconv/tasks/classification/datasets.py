"""``open_data``: opens a data set by its name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from dynaconv.data.opening import LARGEST_SIDE, check_opening, check_whole
from dynaconv.errors import UserError, suggest
from dynaconv.tasks.classification.image_data import ImageData
from dynaconv.tasks.classification.source import Splits, Subset, stratified_rows
from dynaconv.tasks.classification.transforms import Preprocess


def open_data(
    name: str,
    *,
    image_size: int | None = None,
    batch_size: int = 64,
    eval_batch_size: int | None = None,
    workers: int = 0,
    seed: int = 0,
    bad_images: str = "error",
    max_bad_images: int | None = None,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    interpolation: str | None = None,
    crop_pct: float | None = None,
    root: str | Path | None = None,
    train_split: str | None = None,
    eval_split: str | None = None,
    download: bool = False,
    train_images: int | None = None,
    loader_timeout: float = 120.0,
    keep_pictures: bool = False,
) -> ImageData:
    """Open a data set by name.

    Args:
        name: ``digits`` (scikit-learn's, embedded); a folder in ImageFolder layout (``train/`` and ``val/``, or class
            folders alone, of which a fixed 20 % is held out); ``torch/NAME`` (torchvision's, through timm),
            ``hfds/NAME`` (Hugging Face), or ``wds/FOLDER`` (WebDataset shards on a local disk).
        image_size: height and width the network sees; the data set's own (digits 32, CIFAR 32, photographs 224).
        batch_size: examples of one optimizer step over all processes.
        eval_batch_size: of evaluation; ``batch_size`` if ``None``.
        workers: loader processes; 0 loads in this one. The batches are the same either way.
        seed: of the training order and the augmentation.
        bad_images: ``error`` or ``skip`` (counted, named in the log, at most ``max_bad_images``: 1 %, at least 10).
        mean, std, interpolation, crop_pct: preprocessing; the data set's own where ``None``.
        root: folder of a ``torch/`` or ``hfds/`` data set.
        train_split, eval_split: names of the splits where the kind of data set has names for them.
        download: let ``torch/`` data sets be fetched.
        train_images: train on this many images, the same share of every class, always the same ones; all if ``None``.
        loader_timeout: seconds after which a silent worker is an error.
        keep_pictures: keep small pictures in memory once they were decoded (up to 96 pixels, 512 MB a split and
            loader process); the batches are the same.

    Raises:
        UserError: unknown or missing data set, empty folder, one class only, a number out of range.
    """
    if isinstance(image_size, (tuple, list)):
        raise UserError(
            f"image_size is {'x'.join(map(str, image_size))}; pictures to classify are square, expected one number"
        )
    check_opening(
        batch_size=batch_size,
        eval_batch_size=eval_batch_size,
        workers=workers,
        seed=seed,
        bad_images=bad_images,
        max_bad_images=max_bad_images,
        loader_timeout=loader_timeout,
    )
    if image_size is not None:
        check_whole("image_size", image_size, 1, LARGEST_SIDE)
    splits = open_splits(name, root=root, train_split=train_split, eval_split=eval_split, download=download)
    if train_images is not None:
        splits = _smaller(splits, train_images, str(name))
    chosen: dict[str, Any] = {
        "image_size": image_size or splits.image_size,
        "mean": mean or splits.mean,
        "std": std or splits.std,
        "interpolation": interpolation or "bicubic",
        "crop_pct": crop_pct or splits.crop_pct,
    }
    preprocess = Preprocess(**chosen)
    return ImageData(
        splits,
        preprocess,
        name=str(name),
        batch_size=batch_size,
        eval_batch_size=eval_batch_size or batch_size,
        workers=workers,
        seed=seed,
        bad_images=bad_images,
        max_bad_images=max_bad_images,
        loader_timeout=loader_timeout,
        keep_pictures=keep_pictures,
    )


def _smaller(splits: Splits, size: int, name: str) -> Splits:
    """The same data with fewer training images."""
    whole = len(splits.train)
    if not len(splits.classes) <= size <= whole:
        raise UserError(
            f"train_images is {size}; expected {len(splits.classes)} (one for every class) to {whole}, which is all of "
            f"{name}."
        )
    train = Subset(splits.train, stratified_rows(splits.train, size))
    return replace(splits, train=train, description=f"{size:,} of the {whole:,} training images of {name}")


def open_splits(
    name: str,
    *,
    root: str | Path | None = None,
    train_split: str | None = None,
    eval_split: str | None = None,
    download: bool = False,
) -> Splits:
    """Find the data set that ``name`` means."""
    kind, slash, rest = str(name).partition("/")
    if name == "digits":
        from dynaconv.tasks.classification.source import open_digits

        return open_digits()
    if slash and rest and kind.lower() in ("torch", "hfds", "wds", "hfids", "tfds") and not Path(name).exists():
        from dynaconv.tasks.classification.named import open_named

        return open_named(kind.lower(), rest, root, train_split, eval_split, download)
    path = Path(name).expanduser()
    if path.exists():
        from dynaconv.tasks.classification.folder import open_folder

        return open_folder(path)
    raise UserError(_not_found(str(name)))


def _not_found(name: str) -> str:
    known = ["digits", "torch/cifar10", "torch/cifar100", "torch/mnist", "torch/fashion_mnist"]
    return (
        f"There is no data set {name!r}: it is no folder here, and no known name. {suggest(name, known)} "
        "Expected 'digits', a folder with train/CLASS/IMAGE and val/CLASS/IMAGE, 'torch/NAME', 'hfds/NAME' or "
        "'wds/FOLDER'."
    )
