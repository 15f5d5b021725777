"""Every file that the program reads: what it stands among, who reads it, whether it has a checksum.

A new file is a new line in :data:`FILES`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch

import dynaconv
from dynaconv.data.coco_splits import open_coco
from dynaconv.errors import UserError
from dynaconv.files import CHECKSUM, sha256_of
from dynaconv.kernels.cpu import build
from dynaconv.models.hub import load_pretrained
from dynaconv.ops import measured
from dynaconv.tasks import task_class
from dynaconv.tasks.classification import open_data
from dynaconv.tasks.detection import DetectionOptions
from dynaconv.tasks.keypoints.task import KeypointOptions
from dynaconv.tasks.weights import read_weights
from dynaconv.train.run_folder.checkpoint import read_checkpoint
from faults import worlds
from faults.damages import CONTENT
from faults.kinds import ARCHIVE, CHECKPOINT, JSON, WEIGHTS, Kind
from faults.oracle import command
from faults.products import PRODUCTS
from train.tiny import MEASURED


def predict(name: str) -> Callable[[Path], Any]:
    return lambda root: command("predict", root / "w.safetensors", root / name, "--device", "cpu")


def evaluate_folder(root: Path) -> str:
    return command("eval", root / "w.safetensors", "--data", root / "data", "--json", *worlds.QUIET)


def evaluate_shards(root: Path) -> str:
    return command("eval", root / "w.safetensors", "--data", f"wds/{root}", "--json", *worlds.QUIET)


def go_on(root: Path) -> Any:
    """Train the second epoch; the weights and figures in the end."""
    worlds.train(root, "--resume", "auto")
    checkpoints = sorted((root / "run" / "checkpoints").glob("*.pt"))
    state = read_checkpoint(checkpoints[-1])
    history = [{name: value for name, value in one.items() if name not in MEASURED} for one in state["history"]]
    return {"tensors": read_weights(root / "run" / "last.safetensors")[0], "history": history}


def recipe(*words: object) -> Callable[[Path], Any]:
    def read(root: Path) -> Any:
        place = ("--data", root / "data", "--out", root / "other", *worlds.QUIET, "--quiet")
        said = command("train", "--recipe", root / "run" / "run.json", *place, *words)
        return said if words else read_weights(root / "other" / "last.safetensors")[0]

    return read


def finetune(name: str) -> Callable[[Path], Any]:
    def read(root: Path) -> Any:
        worlds.train(root, "--finetune", root / name, "--epochs", 1)
        return read_weights(root / "run" / "last.safetensors")[0]

    return read


def annotations(root: Path) -> Any:
    """Everything in the files, and the batches of training and evaluation."""
    data = task_class("detection").open_data(root / "coco", image_size=32, batch_size=3)
    for _ in (*data.training_batches(DetectionOptions()), *data.evaluation_batches()):
        pass
    return data.listing()


def people(boxes: bool) -> Callable[[Path], Any]:
    def read(root: Path) -> Any:
        found = root / "boxes.json" if boxes else None
        data = task_class("keypoints").open_data(root / "coco", image_size=(32, 32), batch_size=3, boxes=found)
        for _ in (*data.training_batches(KeypointOptions()), *data.evaluation_batches()):
            pass
        return {**data.facts(KeypointOptions()), **data.about()}

    return read


def digits_in_files(root: Path) -> Any:
    """torchvision's files of MNIST."""
    data = open_data("torch/mnist", root=root / "mnist", image_size=16)
    return [batch[0].mean() for batch in data.eval_loader]


def compared_again(root: Path) -> Any:
    return worlds.comparison(root).plain()


def tuned(root: Path) -> Any:
    """The times that the plan would use; measured times are other ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DYNACONV_CACHE", str(root / "cache"))
        patch.setattr(measured, "_known", {})
        patch.setattr(measured, "cache_file", lambda: root / "cache" / "strategies.json")
        return measured.remember(cast(Any, "call"), ("loop", "tiled"), lambda: {"loop": 2.5, "tiled": 1.5})


def loaded_kernels(root: Path) -> Any:
    """The checksum of the library that is loaded; what stands for compiling copies a whole one."""
    folder, whole = root / "cache" / "kernels", b"\x7fELF a library" * 50

    def compile_(*_: object) -> Path:
        path = folder / f"print-{hashlib.sha256(whole).hexdigest()[:32]}.so"
        path.write_bytes(whole)
        path.chmod(0o700)
        return path

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DYNACONV_CACHE", str(root / "cache"))
        patch.setattr(build, "_fingerprint", lambda *_: "print")
        patch.setattr(build, "_compile", compile_)
        patch.setattr(build, "declare", lambda library: library)
        patch.setattr(build.ctypes, "CDLL", lambda path: sha256_of(Path(path)))
        found = build._load.__wrapped__(None)
    if found.startswith("compiling"):  # a reason, which `why_not` shows
        raise UserError(found)
    return found


def annotated_folder(root: Path) -> Any:
    return [coco.digest() for coco in open_coco(root / "coco", keypoints=False)]


def archived(root: Path) -> Any:
    """The output too; a network that was described wrongly, with the right checksum, may fail when it runs."""
    network = dynaconv.load(root / "network.safetensors")
    with torch.no_grad():
        try:
            return network(torch.linspace(0, 1, 3 * 16 * 16).reshape(1, 3, 16, 16))
        except (ValueError, RuntimeError, TypeError) as error:
            raise UserError(f"network.safetensors, loaded: {error}") from error


def from_hub(root: Path) -> Any:
    return dict(load_pretrained(root / "hub").state_dict())


PICTURES = ("p.png", "p.jpg", "p.gif", "p.bmp", "p.ppm", "p.tiff", "p.webp", "deep.png", "palette.png", "cmyk.jpg")
COCO = ("case/coco",)  # the folder: which file is missing cannot be known
LAST = "run/checkpoints/epoch_0001*.pt"
FOLDER = ("gone", "pipe", "loop", "dangling", "lock")

FILES: dict[str, Kind] = {
    **{name: Kind(name, worlds.weights, predict(name), share=0.5) for name in (*PICTURES, "moving.gif")},
    "evaluated picture": Kind("data/val/cat/001.png", worlds.weights, evaluate_folder),
    "class folder": Kind("data/val/cat", worlds.weights, evaluate_folder, checked=True, damages=FOLDER),
    "data folder": Kind("data", worlds.weights, evaluate_folder, damages=FOLDER),
    "shard": Kind("val-0.tar", worlds.shards, evaluate_shards),
    "classes.json": Kind("classes.json", worlds.shards, evaluate_shards, JSON, named=("classes",)),
    "weights": Kind("w.safetensors", worlds.weights, predict("p.png"), WEIGHTS, checked=True, share=2),
    "weights to fine-tune": Kind(
        "w.safetensors", worlds.weights, finetune("w.safetensors"), WEIGHTS, checked=True, share=0.3
    ),
    "checkpoint to fine-tune": Kind("c.pt", worlds.weights, finetune("c.pt"), CHECKPOINT, checked=True, share=0.3),
    "recipe shown": Kind("run/run.json", worlds.run, recipe("--show"), JSON, named=("recipe",)),
    # arguments that the network does not take are said by its name
    "recipe": Kind("run/run.json", worlds.run, recipe(), JSON, share=0.5, named=("test_resnet",)),
    "checkpoint": Kind(LAST, worlds.run, go_on, CHECKPOINT, checked=True, share=2, named=("run/checkpoints",)),
    "checksum": Kind(f"{LAST}{CHECKSUM}", worlds.run, go_on, checked=True, share=0.5, named=("run/checkpoints",)),
    "run.json": Kind("run/run.json", worlds.run, go_on, checked=True, share=0.3),
    "log.csv": Kind("run/log.csv", worlds.run, go_on, checked=True, share=0.3),
    "lock": Kind("run/.lock", worlds.run, go_on, checked=True, share=0.3),
    "run folder": Kind("run", worlds.run, go_on, damages=FOLDER, share=0.3),
    "checkpoints": Kind("run/checkpoints", worlds.run, go_on, damages=FOLDER, share=0.3),
    "picture of a run": Kind(
        "data/train/cat/001.png",
        worlds.run,
        go_on,
        damages=("cut", "longer", "twice", "empty", "gone", "folder", "dangling", "loop"),
        checked=True,
        named=("train/cat",),
        share=0.3,
    ),
    "annotations": Kind("coco/instances_train.json", worlds.boxes, annotations, JSON, named=COCO, share=3),
    "known annotations": Kind("coco/instances_val.json", worlds.boxes, annotated_folder, JSON, named=COCO),
    "keypoints": Kind(
        "coco/keypoints_train.json", worlds.keypoints, people(boxes=False), JSON, named=(*COCO, "sigmas"), share=3
    ),
    "detected boxes": Kind("boxes.json", worlds.keypoints, people(boxes=True), JSON, share=2),
    "settings.json": Kind(
        "out/settings.json", worlds.compared, compared_again, JSON, checked=True, share=0.5, named=("case/out",)
    ),
    "measured.json": Kind(
        "out/measured.json", worlds.compared, compared_again, JSON, checked=True, damages=tuple(CONTENT), share=0.5
    ),
    "result.json": Kind("out/runs/dynamic-k2-seed0/result.json", worlds.compared, compared_again, JSON, checked=True),
    "tune cache": Kind("cache/strategies.json", tuned, tuned, JSON, checked=True, damages=tuple(CONTENT)),
    "compiled kernels": Kind("cache/kernels/*.so", loaded_kernels, loaded_kernels, checked=True),
    "MNIST pictures": Kind("mnist/MNIST/raw/t10k-images-idx3-ubyte", worlds.mnist, digits_in_files, named=("mnist",)),
    "MNIST labels": Kind("mnist/MNIST/raw/t10k-labels-idx1-ubyte", worlds.mnist, digits_in_files, named=("mnist",)),
    "archive": Kind("network.safetensors", worlds.archive, archived, ARCHIVE, checked=True, share=2),
    "config.json": Kind("hub/config.json", worlds.hub, from_hub, JSON, share=0.5, named=("case/hub",)),
    "model.safetensors": Kind("hub/model.safetensors", worlds.hub, from_hub, share=0.5, named=("hub",)),
    **PRODUCTS,
}


def damaged_path(kind: Kind, root: Path) -> Path:
    """The file that is damaged."""
    return sorted(root.glob(kind.path))[-1] if "*" in kind.path else root / kind.path
