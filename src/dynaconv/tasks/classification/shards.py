"""WebDataset shards on a local disk: tar files whose members KEY.jpg and KEY.cls belong together.

The shards are indexed once and then read by random access, like any other split. The stream of the webdataset package
has no reproducible order and no exact end in several processes, and skips damaged images in silence.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from PIL.Image import Image

from dynaconv.data import decode
from dynaconv.data.tar import tar_members
from dynaconv.errors import UserError
from dynaconv.files import read_json, read_plain
from dynaconv.tasks.classification.folder import EVALUATION_NAMES, EXTENSIONS, TRAIN_NAMES
from dynaconv.tasks.classification.source import Source, Splits, stratified_split

MOST_CLASSES = 1_000_000


@dataclass(frozen=True)
class Member:
    """Where an image's bytes are."""

    shard: int
    key: str
    offset: int
    size: int


@dataclass(frozen=True)
class Shards:
    """The images of some shards."""

    paths: Sequence[Path]
    members: Sequence[Member]
    labels: Sequence[int]

    def __len__(self) -> int:
        return len(self.members)

    def image(self, index: int) -> Image:
        member = self.members[index]
        with open(self.paths[member.shard], "rb") as shard:
            shard.seek(member.offset)
            return decode(io.BytesIO(shard.read(member.size)), self.name(index))

    def name(self, index: int) -> str:
        member = self.members[index]
        return f"{self.paths[member.shard]}:{member.key}"

    def listed(self, index: int) -> tuple[str, int]:
        member = self.members[index]
        return f"{Path(self.paths[member.shard]).name}:{member.key}", member.size


def open_shards(root: Path, train_split: str | None, eval_split: str | None) -> Splits:
    """Read ``root/*train*.tar`` and ``root/*val*.tar`` (or folders of these names); a single kind is split 80 : 20.

    Class names come from ``root/classes.json`` or ``root/classes.txt`` (one a line) if there is one.
    """
    if not root.is_dir():
        raise UserError(
            f"wds/{root}: there is no such folder. Expected a folder of .tar shards on this machine; "
            "fetch remote ones first."
        )
    train_paths = _find(root, (train_split,) if train_split else TRAIN_NAMES)
    held_paths = _find(root, (eval_split,) if eval_split else EVALUATION_NAMES)
    if not train_paths:
        train_paths = [path for path in sorted(root.glob("*.tar")) if path not in held_paths]
    if not train_paths:
        raise UserError(f"wds/{root} holds no .tar shards to train on.")
    train: Source = read_shards(train_paths)
    how = "its shards"
    if held_paths:
        held: Source = read_shards(held_paths)
    else:
        train, held = stratified_split(train, share=0.2)
        how = "no val shards, so a fixed 20 % of every class is held out"
    return Splits(train, held, _class_names(root, train, held), description=f"WebDataset {root.name}; {how}")


def read_shards(paths: Sequence[Path]) -> Shards:
    """Index shards: one pass over the headers."""
    members: list[Member] = []
    labels: list[int] = []
    for shard, path in enumerate(paths):
        images, classes = _index(shard, path)
        for key, member in images.items():
            if key not in classes:
                raise UserError(f"{path}: {key} has an image and no {key}.cls with its class number.")
            members.append(member)
            labels.append(classes[key])
    if not members:
        raise UserError(f"The shards {paths[0]} ... hold no images ({', '.join(EXTENSIONS)}).")
    return Shards(paths, members, labels)


def _index(shard: int, path: Path) -> tuple[dict[str, Member], dict[str, int]]:
    images: dict[str, Member] = {}
    classes: dict[str, int] = {}
    with open_shard(path) as file:
        for entry in tar_members(path):
            folder, _, name = entry.name.rpartition("/")
            stem, _, suffix = name.partition(".")  # webdataset: the key ends at the first dot
            key = f"{folder}/{stem}" if folder else stem
            if f".{suffix.lower()}" in EXTENSIONS:
                images[key] = Member(shard, key, entry.offset, entry.size)
            elif suffix == "cls":
                file.seek(entry.offset)
                classes[key] = _class_number(file.read(min(entry.size, 32)), path, entry.name)
    return images, classes


def open_shard(path: Path) -> IO[bytes]:
    """Open a shard, but not a FIFO, which would block."""
    if not path.is_file():
        raise UserError(f"{path} is not an ordinary file; expected a shard.")
    try:
        return open(path, "rb")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error


def _class_number(content: bytes, path: Path, name: str) -> int:
    try:
        number = int(content)
    except ValueError:
        number = -1
    if not 0 <= number < MOST_CLASSES:
        raise UserError(
            f"{path}: {name} holds {content[:20]!r}; expected a class number from 0 on, below {MOST_CLASSES:,}."
        )
    return number


def _find(root: Path, names: Sequence[str]) -> list[Path]:
    for name in names:
        found = sorted((root / name).glob("*.tar")) or sorted(root.glob(f"*{name}*.tar"))
        if found:
            return found
    return []


def _class_names(root: Path, *splits: Source) -> list[str]:
    count = 1 + max(max(split.labels) for split in splits)
    names = [str(number) for number in range(count)]
    for path in (root / "classes.json", root / "classes.txt"):
        if path.exists() or path.is_symlink():  # a pipe, a folder, a link to nothing are said, not passed over
            names = _read_names(path)
            break
    if len(names) < count:
        raise UserError(f"{root} names {len(names)} classes and its shards hold class number {count - 1}.")
    if len(names) < 2:
        raise UserError(f"{root} holds one class only; a classifier needs at least two.")
    return names


def _read_names(path: Path) -> list[str]:
    try:
        names = read_json(path) if path.suffix == ".json" else read_plain(path).decode("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as names of classes: {error}.") from error
    if not isinstance(names, list) or not all(isinstance(name, (str, int)) for name in names):
        raise UserError(f"{path} does not hold a list of names; expected one for every class number, in order.")
    return [str(name) for name in names]
