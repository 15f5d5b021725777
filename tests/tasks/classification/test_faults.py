"""Data that is damaged, odd, or another one than before: an error with its name, and never a smaller set in silence."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.test_decoding import png_header
from dynaconv.data import BadImage, decode
from dynaconv.data.tar import tar_members
from dynaconv.errors import UserError
from dynaconv.tasks.classification import Preprocess, open_data
from dynaconv.tasks.classification.prediction import find_images
from tasks.classification.test_shards import add, write_shards
from tasks.pictures import write_folder, write_pictures


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "train-0.tar"
    with tarfile.open(path, "w") as archive:
        for number in range(6):
            add(archive, f"{number}.png", bytes([number]) * 700)
            add(archive, f"{number}.cls", b"0")
    assert len(list(tar_members(path))) == 12
    return path


@pytest.mark.parametrize("member", range(12))
@pytest.mark.parametrize("bit", [3, 8 * 110, 8 * 300])  # in the name, in a number, in the rest of the header
def test_flipped_bit_in_a_tar_header(shard: Path, member: int, bit: int) -> None:
    with tarfile.open(shard) as archive:
        offset = archive.getmembers()[member].offset
    content = bytearray(shard.read_bytes())
    content[offset + bit // 8] ^= 1 << bit % 8
    shard.write_bytes(content)
    with pytest.raises(UserError, match=r"train-0\.tar is not a whole.*"):
        list(tar_members(shard))


def test_tar_cut_anywhere(shard: Path) -> None:
    content = shard.read_bytes()
    with tarfile.open(shard) as archive:
        end = archive.getmembers()[-1].offset_data + 512
    for length in [*range(0, end, 137), *range(512, end + 1, 512)]:
        shard.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"train-0\.tar is not a whole"):
            list(tar_members(shard))


def test_offset_of_the_damage_is_named(shard: Path) -> None:
    with tarfile.open(shard) as archive:
        offset = archive.getmembers()[4].offset
    content = bytearray(shard.read_bytes())
    content[offset] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match=f"at offset {offset:,} there is neither"):
        list(tar_members(shard))
    shard.write_bytes(bytes(content[:offset]))
    with pytest.raises(UserError, match=f"cut off at offset {offset:,}"):
        list(tar_members(shard))


def test_joined_tars_are_not_half_a_set(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes() * 2)
    with pytest.raises(UserError, match="several tar files were joined"):
        list(tar_members(shard))


@pytest.mark.parametrize("size", [(20_000, 1), (1, 20_000), (100_000, 1)])
def test_extreme_shapes_are_bad_images(tmp_path: Path, size: tuple[int, int]) -> None:
    write_folder(tmp_path)
    for split in ("train", "val"):
        Image.new("RGB", size).save(tmp_path / split / "cat" / "strip.png")
    data = open_data(str(tmp_path), batch_size=4, bad_images="skip")
    assert sum(len(labels) for _, labels in data.eval_loader) == 8
    ((name, reason),) = data.bad_images.reasons.items()
    assert name.endswith("val/cat/strip.png")
    assert f"{size[0]}x{size[1]} pixels would be resized to" in reason
    with pytest.raises(UserError, match=r"strip\.png: .* would be resized to"):
        list(open_data(str(tmp_path), batch_size=4).eval_loader)


def test_listing_names_what_changed(tmp_path: Path) -> None:
    one = write_folder(tmp_path / "one")
    before = open_data(str(one)).listing()
    shutil.copytree(one, tmp_path / "two")
    assert open_data(str(tmp_path / "two")).listing() == before, "the same data in another place"
    cat, dog = one / "train" / "cat", one / "train" / "dog"
    (cat / "001.png").rename(dog / "100.png")  # labels moved, at equal counts
    (dog / "001.png").rename(cat / "100.png")
    (one / "val" / "dog" / "001.png").write_bytes(b"another picture")
    after = open_data(str(one)).listing()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"images of train/cat", "images of train/dog", "images of eval/dog"}


def test_listing_of_shards_and_digits(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", write_folder(tmp_path / "pictures"))
    before = open_data(f"wds/{shards}").listing()
    assert before["images of train/0"].startswith("8 images, digest ")
    assert open_data("digits").listing() == open_data("digits", seed=3).listing()


@contextmanager
def nobody() -> Iterator[None]:
    """As a user whom file modes concern."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_unreadable_class_folder() -> None:
    root = Path(tempfile.mkdtemp())
    root.chmod(0o755)
    try:
        write_folder(root)
        (root / "train" / "cat").chmod(0)
        with nobody(), pytest.raises(UserError, match=r"train/cat cannot be read: Permission denied"):
            open_data(str(root))
        (root / "train" / "cat").chmod(0o755)
        (root / "train").chmod(0)
        with nobody(), pytest.raises(UserError, match=r"train cannot be read: Permission denied"):
            open_data(str(root))
    finally:
        (root / "train").chmod(0o755)
        (root / "train" / "cat").chmod(0o755)
        shutil.rmtree(root)


def test_unreadable_folder_of_images_to_predict() -> None:
    """Its images were left out in silence."""
    root = Path(tempfile.mkdtemp())
    root.chmod(0o755)
    try:
        write_folder(root)
        assert len(find_images([root])) == len(list(root.rglob("*.png")))
        (root / "train" / "cat").chmod(0)
        with nobody(), pytest.raises(UserError, match=r"train/cat cannot be read: Permission denied"):
            find_images([root])
    finally:
        (root / "train" / "cat").chmod(0o755)
        shutil.rmtree(root)


def test_pipe_named_like_an_image(tmp_path: Path) -> None:
    write_folder(tmp_path)
    pipe = tmp_path / "train" / "cat" / "pipe.png"
    os.mkfifo(pipe)
    with pytest.raises(UserError, match=r"pipe\.png is named like an image and is no ordinary file"):
        open_data(str(tmp_path))
    with pytest.raises(BadImage, match=r"pipe\.png: it is no ordinary file"):
        decode(pipe)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_pipe_named_like_a_shard(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "train-0.tar")
    with pytest.raises(UserError, match=r"train-0\.tar is not an ordinary file"):
        open_data(f"wds/{tmp_path}")


def test_folder_named_like_an_image(tmp_path: Path) -> None:
    write_folder(tmp_path)
    write_pictures(tmp_path / "train" / "cat" / "folder.png", 2)
    assert open_data(str(tmp_path)).train_size == 18


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("classes.json", b"\xff\xfe\x00", r"classes\.json cannot be read as names of classes"),
        ("classes.json", b'{"a": 1}', r"classes\.json does not hold a list"),
        ("classes.json", b"[1, [2]]", r"classes\.json does not hold a list"),
        ("classes.txt", b"\xff\xfe\x00", r"classes\.txt cannot be read as names of classes"),
    ],
)
def test_wrong_names_beside_shards(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    shards = write_shards(tmp_path / "shards", write_folder(tmp_path / "pictures"))
    (shards / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        open_data(f"wds/{shards}")


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", ["classes.json", "classes.txt"])
@pytest.mark.parametrize("what", ["pipe", "folder", "link"])
def test_names_of_classes_that_are_no_file(tmp_path: Path, name: str, what: str) -> None:
    """They were passed over in silence, and the classes were called 0 and 1."""
    shards = write_shards(tmp_path / "shards", write_folder(tmp_path / "pictures"))
    if what == "pipe":
        os.mkfifo(shards / name)
    elif what == "folder":
        (shards / name).mkdir()
    else:
        (shards / name).symlink_to("nowhere")
    with pytest.raises(UserError, match=f"{name} cannot be read as names of classes"):
        open_data(f"wds/{shards}")


def test_class_number_of_a_billion(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "train-0.tar", "w") as archive:
        add(archive, "a.png", b"x")
        add(archive, "a.cls", b"1000000000")
    with pytest.raises(UserError, match="from 0 on, below 1,000,000"):
        open_data(f"wds/{tmp_path}")


def test_tiffs_without_a_scale(tmp_path: Path) -> None:
    path = tmp_path / "a.tiff"
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(path)
    with pytest.raises(BadImage, match="floating-point"):
        decode(path)
    Image.fromarray(np.full((4, 4), 1 << 20, np.int32)).save(path)
    with pytest.raises(BadImage, match="integers from 1048576 to 1048576"):
        decode(path)
    Image.fromarray(np.full((4, 4), 257 * 100, np.int32)).save(path)
    assert np.asarray(decode(path))[0, 0].tolist() == [100, 100, 100]


def test_torchvisions_folders_are_decoded_by_us(tmp_path: Path) -> None:
    """EXIF is applied, and a decompression bomb is a bad image like others."""
    write_folder(tmp_path)
    (tmp_path / "val").rename(tmp_path / "validation")
    upright = Image.new("RGB", (40, 20), (0, 0, 255))
    upright.paste((255, 0, 0), (0, 0, 40, 10))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    upright.save(tmp_path / "validation" / "cat" / "turned.png", exif=exif)
    (tmp_path / "validation" / "dog" / "bomb.png").write_bytes(png_header(40_000, 40_000))
    data = open_data("torch/image_folder", root=tmp_path, image_size=8, bad_images="skip")
    source = data.evaluation_source
    rows = [row for row in range(len(source)) if source.listed(row)[0].endswith("turned.png")]
    assert np.asarray(source.image(rows[0]))[0, 0].tolist() == [0, 0, 255]
    assert sum(len(labels) for _, labels in data.eval_loader) == 9
    assert next(iter(data.bad_images.reasons)).endswith("bomb.png")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("workers", 10**6, "workers is 1000000; expected at most 1024"),
        ("seed", 2**32, "seed is 4294967296; expected at most 4294967295"),
        ("mean", (float("nan"), 0.0, 0.0), "mean.0 is nan"),
    ],
)
def test_numbers_out_of_range(option: str, value: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_data("digits", **{option: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(("mean", "std"), [((0.5,) * 3, (0.2, 0.0, 0.2)), ((0.5,) * 3, (-1.0,) * 3)])
def test_a_normalisation_that_divides_by_nothing(mean: Any, std: Any) -> None:
    with pytest.raises(UserError, match="expected finite numbers, and std above 0"):
        Preprocess(image_size=32, mean=mean, std=std)
