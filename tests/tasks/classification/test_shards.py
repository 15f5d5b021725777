"""WebDataset shards on a local disk."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
import torch

from dynaconv.errors import UserError
from dynaconv.tasks.classification import open_data
from tasks.pictures import write_folder


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def write_shards(folder: Path, pictures: Path, per_shard: int = 5) -> Path:
    """The pictures of a folder as train-0000.tar, ... and val-0000.tar, ..."""
    folder.mkdir()
    for split in ("train", "val"):
        files = sorted((pictures / split).rglob("*.png"))
        for shard in range(0, len(files), per_shard):
            with tarfile.open(folder / f"{split}-{shard // per_shard:04d}.tar", "w") as archive:
                for number, path in enumerate(files[shard : shard + per_shard]):
                    label = ["cat", "dog"].index(path.parent.name)
                    add(archive, f"{shard + number:05d}.png", path.read_bytes())
                    add(archive, f"{shard + number:05d}.cls", str(label).encode())
    return folder


def test_the_same_batches_as_from_the_folder(tmp_path: Path) -> None:
    pictures = write_folder(tmp_path / "pictures")
    shards = write_shards(tmp_path / "shards", pictures)
    (shards / "classes.txt").write_text("cat\ndog\n")
    from_folder = open_data(str(pictures), image_size=8, batch_size=4)
    from_shards = open_data(f"wds/{shards}", image_size=8, batch_size=4, workers=2)
    assert from_shards.classes == ["cat", "dog"]
    for one, two in (
        (from_folder.train_loader, from_shards.train_loader),
        (from_folder.eval_loader, from_shards.eval_loader),
    ):
        pairs = list(zip(one, two, strict=True))
        assert pairs
        assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs)
        two.close()


def test_one_kind_of_shards_is_split(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", write_folder(tmp_path / "pictures"))
    for path in shards.glob("val*"):
        path.unlink()
    data = open_data(f"wds/{shards}", image_size=8)
    assert (data.train_size, data.eval_size) == (12, 4)
    assert data.classes == ["0", "1"]


def test_hostile_members_are_not_unpacked(tmp_path: Path) -> None:
    pictures = write_folder(tmp_path / "pictures")
    shards = write_shards(tmp_path / "shards", pictures)
    picture = next((pictures / "train").rglob("*.png")).read_bytes()
    with tarfile.open(shards / "train-9999.tar", "w") as archive:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        add(archive, "../../outside.png", picture)
        add(archive, "../../outside.cls", b"1")
    before = sorted(path for path in tmp_path.rglob("*"))
    data = open_data(f"wds/{shards}", image_size=8, batch_size=17)
    assert data.train_size == 17, "the picture with the hostile name is read in place; the link is no picture"
    assert len(next(iter(data.train_loader))[1]) == 17
    assert sorted(path for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.png": b"x"}, r"a has an image and no a\.cls"),
        ({"a.png": b"x", "a.cls": b"cat"}, r"a\.cls holds b'cat'; expected a class number"),
        ({"a.png": b"x", "a.cls": b"-1"}, "expected a class number from 0 on"),
        ({"a.txt": b"x"}, "hold no images"),
    ],
)
def test_members_that_make_no_example(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    with tarfile.open(tmp_path / "train-0.tar", "w") as archive:
        for name, content in members.items():
            add(archive, name, content)
    with pytest.raises(UserError, match=message):
        open_data(f"wds/{tmp_path}")


def test_truncated_shard_is_named(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", write_folder(tmp_path / "pictures"))
    path = shards / "train-0001.tar"
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(UserError, match=r"train-0001\.tar is not a whole"):
        open_data(f"wds/{shards}")


def test_no_shards(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no \.tar shards"):
        open_data(f"wds/{tmp_path}")
