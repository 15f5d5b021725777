"""Folders of images, one folder per class (torchvision's ImageFolder layout); and loose image files."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL.Image import Image

from dynaconv.data import decode
from dynaconv.errors import UserError
from dynaconv.tasks.classification.source import Source, Splits, stratified_split

log = logging.getLogger(__name__)

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff")
TRAIN_NAMES = ("train", "training")
EVALUATION_NAMES = ("val", "validation", "valid", "eval", "test")


@dataclass(frozen=True)
class Folder:
    """The images below one folder; ``sizes`` are those of the files, in bytes."""

    paths: Sequence[str]
    labels: Sequence[int]
    root: str
    sizes: Sequence[int]

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, index: int) -> Image:
        return decode(self.paths[index])

    def name(self, index: int) -> str:
        return self.paths[index]

    def listed(self, index: int) -> tuple[str, int]:
        return os.path.relpath(self.paths[index], self.root), self.sizes[index]


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
    classes = sorted(entry.name for entry in _entries(root) if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        loose = sum(entry.suffix.lower() in EXTENSIONS for entry in _entries(root))
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
        {entry.name for entry in _entries(root) if entry.is_dir() and not entry.name.startswith(".")} - set(classes)
    )
    if unknown:
        raise UserError(
            f"{root} holds classes that training does not know: {', '.join(unknown[:5])}"
            f"{' ...' if len(unknown) > 5 else ''}. Known are {', '.join(classes[:5])}"
            f"{' ...' if len(classes) > 5 else ''}; remove or rename the others."
        )
    paths: list[str] = []
    labels: list[int] = []
    sizes: list[int] = []
    missing = []
    for label, name in enumerate(classes):
        found = images_below(root / name) if _is_folder(root / name, "the images of a class") else []
        if not found:
            missing.append(name)
        paths += [path for path, _ in found]
        sizes += [size for _, size in found]
        labels += [label] * len(found)
    if not paths:
        raise UserError(f"{root} holds class folders and no images in them ({', '.join(EXTENSIONS)} are read).")
    if missing:
        log.warning(
            "%s has no images of %d of %d classes: %s", root, len(missing), len(classes), ", ".join(missing[:5])
        )
    return Folder(paths, labels, str(root), sizes)


def images_below(folder: Path) -> list[tuple[str, int]]:
    """Path and size of every image file below a folder, in order.

    Raises:
        UserError: a folder cannot be read, or what has an image's name is no file (a pipe would be waited for).
    """

    def refuse(error: OSError) -> None:
        raise UserError(
            f"The folder {error.filename} cannot be read: {error.strerror}. Make it readable, or remove it."
        )

    found = []
    for parent, _, names in os.walk(folder, onerror=refuse):
        for name in names:
            if os.path.splitext(name)[1].lower() in EXTENSIONS:
                path = os.path.join(parent, name)
                found.append((path, _size_of(path)))
    return sorted(found)


def _size_of(path: str) -> int:
    try:
        status = os.stat(path)
    except OSError:
        return 0  # a broken link: it counts as an unreadable image
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path} is named like an image and is no ordinary file. Remove or rename it.")
    return status.st_size


def _entries(root: Path) -> list[Path]:
    try:
        return list(root.iterdir())
    except OSError as error:
        raise UserError(f"The folder {root} cannot be read: {error.strerror}. Make it readable.") from error


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
    return next((root / name for name in names if _is_folder(root / name, "images of one split")), None)


def _is_folder(path: Path, what: str) -> bool:
    """Whether there is such a folder; UserError for anything else of that name, which would be left out in silence."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        if not path.is_symlink():
            return False
        raise UserError(f"{path} is a link to nothing; expected a folder with {what}.") from None
    except OSError as error:
        raise UserError(f"The folder {path} cannot be read: {error.strerror}. Make it readable.") from error
    if not stat.S_ISDIR(mode):
        raise UserError(f"{path} is no folder; expected one with {what}.")
    return True


class Files:
    """Image files without labels. The label of an image is its index, to assign predictions to files."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self.labels: Sequence[int] = range(len(paths))

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, index: int) -> Image:
        return decode(self.paths[index])

    def name(self, index: int) -> str:
        return str(self.paths[index])

    def listed(self, index: int) -> tuple[str, int]:
        return str(self.paths[index]), _size_of(str(self.paths[index]))
