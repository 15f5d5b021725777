"""Data sets by timm's names: ``torch/...``, ``hfds/...``; and WebDataset shards, ``wds/...``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL.Image import Image

from dynaconv.data.decoding import decode
from dynaconv.errors import UserError, suggest
from dynaconv.tasks.classification.source import Source, Splits

SMALL = {"cifar10": 32, "cifar100": 32, "mnist": 28, "kmnist": 28, "qmnist": 28, "fashion_mnist": 28}
OTHER_TORCH = ("image_folder", "imagenet", "inaturalist", "places365")
STREAMS = ("hfids", "tfds")


def open_named(
    kind: str, name: str, root: str | Path | None, train_split: str | None, eval_split: str | None, download: bool
) -> Splits:
    """Open ``kind/name``: its two splits, its class names."""
    if kind in STREAMS:
        raise UserError(
            f"{kind}/{name} is a stream: it has no order to come back to, so a run on it could be neither resumed nor "
            f"evaluated exactly over several processes. Use hfds/{name}, or a folder of images."
        )
    if kind == "wds":
        from dynaconv.tasks.classification.shards import open_shards

        return open_shards(Path(root or "") / name, train_split, eval_split)
    if kind == "torch":
        return _open_torch(name, root, train_split, eval_split, download)
    return _open_hugging_face(name, root, train_split, eval_split)


@dataclass(frozen=True)
class Pairs:
    """A torchvision data set: ``set[i]`` is (PIL picture, label)."""

    pairs: Any
    labels: Sequence[int]
    called: str

    def __len__(self) -> int:
        return len(self.pairs)

    def image(self, index: int) -> Image:
        picture = self.pairs[index][0]  # read by our decoder (see _torch_split), or made from an array
        return picture if picture.mode == "RGB" else picture.convert("RGB")

    def name(self, index: int) -> str:
        return f"{self.called}[{index}]"

    def listed(self, index: int) -> tuple[str, int]:
        files = getattr(self.pairs, "imgs", None)
        if files is None or not os.path.isfile(files[index][0]):
            return self.name(index), 0
        return os.path.relpath(files[index][0], getattr(self.pairs, "root", None)), os.path.getsize(files[index][0])


def _open_torch(
    name: str, root: str | Path | None, train_split: str | None, eval_split: str | None, download: bool
) -> Splits:
    known = [*SMALL, *OTHER_TORCH]
    if name.lower() not in known:
        raise UserError(f"torchvision's data set {name!r} is not one that timm opens. {suggest(name, known)}")
    train = _torch_split(name, root, train_split or "train", download)
    held = _torch_split(name, root, eval_split or "validation", download)
    small = name.lower() in SMALL
    return Splits(
        train,
        held,
        classes=_class_names(train, train.pairs),
        description=f"torchvision's {name}",
        image_size=SMALL.get(name.lower(), 224),
        mean=(0.4914, 0.4822, 0.4465) if name.lower().startswith("cifar") else Splits.mean,
        std=(0.2470, 0.2435, 0.2616) if name.lower().startswith("cifar") else Splits.std,
        crop_pct=1.0 if small else 0.875,
        crop="pad" if small else "resized",
        hflip=0.0 if small and "cifar" not in name.lower() else 0.5,
    )


def _torch_split(name: str, root: str | Path | None, split: str, download: bool) -> Pairs:
    from timm.data import create_dataset

    if root is None:
        raise UserError(f"torch/{name} needs the folder that holds it (or shall hold it): pass --data-root FOLDER.")
    try:
        pairs = create_dataset(f"torch/{name}", root=str(root), split=split, download=download)
    except Exception as error:  # torchvision raises RuntimeError, URLError, OSError and more for the same two causes
        hint = "Is there a network?" if download else "Pass --download to fetch it."
        raise UserError(f"torch/{name} cannot be opened in {root}: {error}. {hint}") from error
    if hasattr(pairs, "loader"):
        pairs.loader = decode  # torchvision's own applies no EXIF orientation, and a bomb stops it
    labels = getattr(pairs, "targets", None)
    if labels is None:
        labels = [label for _, label in pairs.samples]
    return Pairs(pairs, [int(label) for label in labels], f"torch/{name} {split}")


def _class_names(train: Source, pairs: Any) -> list[str]:
    names = getattr(pairs, "classes", None)
    return [str(name) for name in names] if names else [str(label) for label in range(max(train.labels) + 1)]


@dataclass
class HuggingFace:
    """A split of a Hugging Face data set, read through timm's reader, decoded by us."""

    reader: Any
    called: str
    labels: Sequence[int] = field(init=False)

    def __post_init__(self) -> None:
        self.labels = [int(label) for label in self.reader.iter_targets()]

    def __len__(self) -> int:
        return len(self.reader)

    def image(self, index: int) -> Image:
        with self.reader[index][0] as file:
            return decode(file, self.name(index))

    def name(self, index: int) -> str:
        return f"{self.called}[{index}]"

    def listed(self, index: int) -> tuple[str, int]:
        return self.name(index), 0


def _open_hugging_face(name: str, root: str | Path | None, train_split: str | None, eval_split: str | None) -> Splits:
    train = _hugging_face_split(name, root, train_split or "train")
    held = _hugging_face_split(name, root, eval_split or "validation")
    names = train.reader.class_to_idx
    classes = [str(key) for key in names] if names else [str(label) for label in range(max(train.labels) + 1)]
    return Splits(train, held, classes, description=f"Hugging Face's {name}")


def _hugging_face_split(name: str, root: str | Path | None, split: str) -> HuggingFace:
    try:
        from timm.data.readers.reader_hfds import ReaderHfds
    except ImportError as error:
        raise UserError("hfds/ data sets need the datasets library: pip install 'dynaconv[data]'.") from error
    try:
        reader = ReaderHfds(name, root=None if root is None else str(root), split=split)
    except Exception as error:  # a missing set, a missing split and a missing network each raise their own
        raise UserError(
            f"hfds/{name}, split {split!r}, cannot be opened: {str(error).splitlines()[0]} "
            "Check the name, --train-split and --eval-split, and the network."
        ) from error
    return HuggingFace(reader, f"hfds/{name} {split}")
