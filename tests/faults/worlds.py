"""Small whole things to damage: data sets, runs, a comparison, an archive. Each is made once and copied."""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import struct
import tarfile
import tempfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import torch
from PIL import Image

import dynaconv
from dynaconv.analysis import CompareSettings, Comparison, compare, measure
from dynaconv.train import TrainSettings
from faults.oracle import command
from tasks.coco_files import write_coco
from tasks.keypoints.files import write_data
from tasks.pictures import write_folder

QUIET = ("--workers", 0, "--device", "cpu")
NETWORK = ("test_resnet", "--arg", "channels=[4,4,4,4]", "--arg", "layers=[1,1,1,1]", "--method", "dynamic")
TRAINING = ("--experts", 2, "--batch-size", 4, "--image-size", 16, "--epochs", 2, "--lr", 0.01, "--quiet", *QUIET)
LOGS = ("--set", "curves=false", "--no-tensorboard")
COMPARISON = CompareSettings(
    backbone="test_resnet",
    model_args={"channels": [4, 4, 4, 4], "layers": [1, 1, 1, 1]},
    methods=("dynamic",),
    experts=(2,),
    train_images=20,
    batch_size=16,
    image_size=16,
    seeds=(0,),
    training=TrainSettings(epochs=1, opt="adamw", lr=0.01, device="cpu", temperature_epochs=0),
)


@functools.cache
def home() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    folder.chmod(0o755)  # some cases read as another user
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def case_folder() -> Path:
    """The folder of the present case: always the same name, for results hold paths."""
    folder = home() / "case"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o755)
    return folder


def once(make: Callable[[Path], object]) -> Callable[[Path], None]:
    """A function that copies into a folder what ``make`` writes; it is written the first time only."""
    name = make.__name__

    def copy(root: Path) -> None:
        kept = home() / name
        if not kept.exists():
            part = home() / f"{name}.part"
            part.mkdir()
            make(part)
            part.rename(kept)
        shutil.copytree(kept, root, dirs_exist_ok=True)

    return copy


def train(root: Path, *words: object) -> str:
    """Train the small network on ``root/data`` into ``root/run``, or go on."""
    given = ("--data", root / "data", "--out", root / "run", *TRAINING, *LOGS, *words)
    return command("train", *NETWORK, *given)


@once
def pictures(root: Path) -> None:
    """Two classes, in ``data/train`` and ``data/val``."""
    write_folder(root / "data", train=4, held=3)


@once
def run(root: Path) -> None:
    """A run that has one of its two epochs to do yet, beside its data; and a picture to predict."""
    pictures(root)
    train(root)
    for path in (root / "run" / "checkpoints").glob("epoch_0002*"):
        path.unlink()
    for path in ("last.safetensors",):
        (root / "run" / path).unlink()


@once
def weights(root: Path) -> None:
    """A finished run's weights and a picture in many formats."""
    pictures(root)
    train(root)
    shutil.copy(root / "run" / "best.safetensors", root / "w.safetensors")
    shutil.copy(sorted((root / "run" / "checkpoints").glob("*.pt"))[-1], root / "c.pt")
    shutil.copy(sorted((root / "run" / "checkpoints").glob("*.sha256"))[-1], root / "c.pt.sha256")
    shutil.rmtree(root / "run")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 24, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    for suffix in ("png", "bmp", "ppm", "gif", "tiff", "webp"):
        picture.save(root / f"p.{suffix}")
    picture.save(root / "p.jpg", exif=exif)
    Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20) * 150).save(root / "deep.png")
    picture.quantize(16).save(root / "palette.png", transparency=3)
    picture.save(root / "moving.gif", save_all=True, append_images=[picture.rotate(90, expand=False)])
    picture.convert("CMYK").save(root / "cmyk.jpg")


@once
def shards(root: Path) -> None:
    """WebDataset shards with names of classes."""
    weights(root)
    for split in ("train", "val"):
        with tarfile.open(root / f"{split}-0.tar", "w") as archive:
            for path in sorted((root / "data" / split).rglob("*.png")):
                key = f"{path.parent.name}{path.stem}"
                for name, content in (
                    (f"{key}.png", path.read_bytes()),
                    (f"{key}.cls", b"01"[(path.parent.name == "dog") :][:1]),
                ):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    archive.addfile(member, BytesIO(content))
    (root / "classes.json").write_text('["cat", "dog"]')
    shutil.rmtree(root / "data")


@once
def boxes(root: Path) -> None:
    """Annotation files for detection."""
    write_coco(root / "coco", train=3, held=2)


@once
def keypoints(root: Path) -> None:
    """Annotation files for keypoints, and the boxes of a detector."""
    write_data(root / "coco")
    found = [
        {"image_id": number, "category_id": 3, "bbox": [10.0, 8.0, 24.0, 32.0], "score": 0.5} for number in (1, 2, 3)
    ]
    (root / "boxes.json").write_text(json.dumps(found))


class Picture:
    """In the place of a figure, which takes longer to draw than all else."""

    def savefig(self, file: IO[bytes], **_: object) -> None:
        file.write(b"picture")


def comparison(root: Path) -> Comparison:
    """The comparison in ``root/out``; what is missing is run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dynaconv.analysis.figure.draw", lambda comparison: Picture())
        return compare(COMPARISON, root / "out")


@once
def compared(root: Path) -> None:
    """A finished comparison."""
    rounds, measure.ROUNDS = measure.ROUNDS, measure.FEWEST
    try:
        comparison(root)
    finally:
        measure.ROUNDS = rounds


@once
def mnist(root: Path) -> None:
    """torchvision's layout: big-endian sizes, then bytes."""
    raw, random = root / "mnist" / "MNIST" / "raw", np.random.default_rng(0)
    raw.mkdir(parents=True)
    for split in ("train", "t10k"):
        images, labels = random.integers(0, 255, (6, 28, 28), dtype=np.uint8), np.arange(6, dtype=np.uint8)
        (raw / f"{split}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, 6, 28, 28) + images.tobytes())
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, 6) + labels.tobytes())


@once
def archive(root: Path) -> None:
    """A frozen network that ``dynaconv.save`` wrote."""
    import timm

    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=3)
    network = dynaconv.dynamize(network, experts=2, share="block").eval()
    dynaconv.save(dynaconv.freeze(network), root / "network.safetensors")


@once
def hub(root: Path) -> None:
    """A network of the zoo as the hub has it."""
    import timm

    from dynaconv.models.hub import save_pretrained

    network = timm.create_model("condconv_mobilenetv1_025", num_classes=3, experts=2)
    save_pretrained(network, root / "hub")
