"""WebDataset shards on a local disk: tar files whose members KEY.jpg and KEY.cls belong together.

The shards are indexed once and then read at random, like any other split: webdataset's own stream has neither an order
to come back to nor an exact end in several processes, and leaves out damaged images without a word.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL.Image import Image

from dynaconv.data.decode import decode
from dynaconv.errors import UserError
from dynaconv.tasks.classification.folder import EVALUATION_NAMES, EXTENSIONS, TRAIN_NAMES
from dynaconv.tasks.classification.source import Source, Splits, stratified_split


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
    try:
        with tarfile.open(path, "r:") as archive:
            for entry in archive:
                folder, _, name = entry.name.rpartition("/")
                stem, _, suffix = name.partition(".")  # webdataset: the key ends at the first dot
                key = f"{folder}/{stem}" if folder else stem
                if not entry.isfile():
                    continue  # links and devices mean nothing here; nothing is ever unpacked
                if f".{suffix.lower()}" in EXTENSIONS:
                    images[key] = Member(shard, key, entry.offset_data, entry.size)
                elif suffix == "cls":
                    content = archive.extractfile(entry)
                    assert content is not None
                    classes[key] = _class_number(content.read(), path, entry.name)
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"{path} is not a whole, uncompressed tar file: {error}.") from error
    return images, classes


def _class_number(content: bytes, path: Path, name: str) -> int:
    try:
        number = int(content)
    except ValueError:
        number = -1
    if number < 0:
        raise UserError(f"{path}: {name} holds {content[:20]!r}; expected a class number from 0 on.")
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
    if (root / "classes.json").is_file():
        names = list(map(str, json.loads((root / "classes.json").read_text())))
    elif (root / "classes.txt").is_file():
        names = (root / "classes.txt").read_text().splitlines()
    if len(names) < count:
        raise UserError(f"{root} names {len(names)} classes and its shards hold class number {count - 1}.")
    if len(names) < 2:
        raise UserError(f"{root} holds one class only; a classifier needs at least two.")
    return names
