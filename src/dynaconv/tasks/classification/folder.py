"""Folders of images, one folder per class (torchvision's ImageFolder layout); and loose image files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL.Image import Image

from dynaconv.data import decode
from dynaconv.errors import UserError
from dynaconv.tasks.classification.source import Source, Splits, stratified_split

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff")
TRAIN_NAMES = ("train", "training")
EVALUATION_NAMES = ("val", "validation", "valid", "eval", "test")


@dataclass(frozen=True)
class Folder:
    """The images below one folder."""

    paths: Sequence[str]
    labels: Sequence[int]

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, index: int) -> Image:
        return decode(self.paths[index])

    def name(self, index: int) -> str:
        return self.paths[index]


def open_folder(root: Path) -> Splits:
    """Read ``root/train`` and ``root/val`` (or test ...); without them, split ``root``'s classes 80 : 20."""
    if not root.is_dir():
        raise UserError(f"--data {root}: expected a folder with one folder of images per class, and this is a file.")
    train = _subfolder(root, TRAIN_NAMES)
    if train is None:
        return _split_one_level(root)
    classes = class_names(train)
    held = _subfolder(root, EVALUATION_NAMES)
    if held is None:
        return _split_one_level(train)
    return Splits(
        read_classes(train, classes),
        read_classes(held, classes),
        classes,
        description=f"images of {root.name}: {train.name}/ and {held.name}/",
    )


def open_one_folder(root: Path, classes: list[str] | None) -> tuple[Source, list[str]]:
    """A folder to evaluate on: its val, test ... folder if it has one, else its own classes."""
    held = _subfolder(root, EVALUATION_NAMES) or root
    names = classes if classes is not None else class_names(held)
    return read_classes(held, names), names


def class_names(root: Path) -> list[str]:
    """The folders in ``root`` in alphabetical order; at least two are expected."""
    classes = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        loose = sum(entry.suffix.lower() in EXTENSIONS for entry in root.iterdir())
        hint = f" It holds {loose} images beside each other: move them into a folder per class." if loose else ""
        raise UserError(f"{root} holds no class folders. Expected {root}/CLASS/IMAGE for at least two classes.{hint}")
    if len(classes) == 1:
        raise UserError(
            f"{root} holds one class only ({classes[0]!r}); a classifier needs at least two folders of images there."
        )
    return classes


def read_classes(root: Path, classes: list[str]) -> Folder:
    """Every image below the class folders of ``root``, labelled by its folder's place in ``classes``."""
    unknown = sorted(
        {entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")} - set(classes)
    )
    if unknown:
        raise UserError(
            f"{root} holds classes that training does not know: {', '.join(unknown[:5])}"
            f"{' ...' if len(unknown) > 5 else ''}. Known are {', '.join(classes[:5])}"
            f"{' ...' if len(classes) > 5 else ''}; remove or rename the others."
        )
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(str(path) for path in (root / name).rglob("*") if path.suffix.lower() in EXTENSIONS)
        paths += found
        labels += [label] * len(found)
    if not paths:
        raise UserError(f"{root} holds class folders and no images in them ({', '.join(EXTENSIONS)} are read).")
    return Folder(paths, labels)


def _split_one_level(root: Path) -> Splits:
    classes = class_names(root)
    whole = read_classes(root, classes)
    missing = [name for label, name in enumerate(classes) if label not in set(whole.labels)]
    if missing:
        raise UserError(f"{root} has no images for {', '.join(missing[:5])}; add some or remove the folders.")
    train, held = stratified_split(whole, share=0.2)
    return Splits(
        train,
        held,
        classes,
        description=f"images of {root.name}; no val folder, so a fixed 20 % of every class is held out",
    )


def _subfolder(root: Path, names: tuple[str, ...]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


class Files:
    """Image files without labels: an image's label is its own number, so that predictions find their way back."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self.labels: Sequence[int] = range(len(paths))

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, index: int) -> Image:
        return decode(self.paths[index])

    def name(self, index: int) -> str:
        return str(self.paths[index])
