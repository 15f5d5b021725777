"""Exported networks of every task find what the network itself finds; what a file must say to be served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dynaconv.errors import UserError
from dynaconv.export import Exported
from dynaconv.export.source import Source, open_source
from dynaconv.serve import exported
from dynaconv.serve.batching import Job
from dynaconv.serve.loading import load_served
from dynaconv.serve.model import Served
from dynaconv.train.run_folder.weights import load_trained, save_weights
from serve.checkpoints import picture, write_checkpoint


def file_of(source: Source, input: str = "normalised", batch: int | None = None, **changes: Any) -> Exported:
    """What ``load`` returns of an exported file, with the network itself in the place of ONNX Runtime."""
    mean, std = (torch.tensor(source.preprocessing[name]).view(-1, 1, 1) for name in ("mean", "std"))

    def call(images: Tensor) -> list[Tensor]:
        if input != "normalised":
            images = ((images / 255 if input == "uint8" else images) - mean) / std
        with torch.no_grad():
            made = source.network(images)
        return [made] if isinstance(made, Tensor) else list(made)

    about = {
        "name": source.name, "format": "onnx", "task": source.task, "classes": source.classes, "input": input,
        "preprocessing": source.preprocessing, "input_size": list(source.input_size), "batch": batch,
        "free_size": False, "outputs": list(source.outputs), **source.facts, **changes,
    }  # fmt: skip
    return Exported(path=Path("x.onnx"), runtime="onnx", about=about, _call=call)


def found(served: Served) -> list[Any]:
    jobs = [Job(served.example(picture(number))) for number in range(3)]
    return [one.predictions for one in served.run(jobs)]


def close(ours: Any, theirs: Any, path: str = "") -> None:
    assert type(ours) is type(theirs), path
    if isinstance(ours, dict):
        assert list(ours) == list(theirs)
        for name in ours:
            close(ours[name], theirs[name], f"{path}.{name}")
    elif isinstance(ours, list):
        assert len(ours) == len(theirs), path
        for number, pair in enumerate(zip(ours, theirs, strict=True)):
            close(*pair, f"{path}[{number}]")
    else:
        assert ours == (pytest.approx(theirs, abs=0.02) if isinstance(theirs, float) else theirs), path


@pytest.fixture(scope="module", params=["detection", "keypoints", "classification"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_checkpoint(tmp_path_factory.mktemp("weights") / "best.safetensors", request.param)
    if request.param == "detection":  # scores that are not all alike: else which of two boxes stays is a rounding
        trained = load_trained(path)
        for name, parameter in trained.model.named_parameters():
            if "classification_head" in name:
                torch.nn.init.normal_(parameter, std=0.5)
        save_weights(path, trained.model, trained.about)
    return path


@pytest.mark.parametrize(("input", "batch"), [("normalised", None), ("float", 2)])
def test_finds_what_the_network_finds(
    input: str, batch: int | None, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = load_served(checkpoint, frozen=False)
    if served.task.name == "detection":
        served.options["min_score"] = 0.6
    expected = found(served)
    assert all(expected)
    monkeypatch.setattr(exported, "load", lambda path, threads: file_of(open_source(checkpoint), input, batch))
    file = load_served(Path("x.onnx"))
    file.options = served.options
    close(found(file), expected)


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ("detection", {"suppression": None}, "does not say its classes, or how boxes are suppressed. Export it from"),
        ("detection", {"classes": None}, "does not say its classes, or how boxes are suppressed"),
        ("detection", {"suppression": {"score_thresh": "x"}}, "or how boxes are suppressed"),
        ("keypoints", {"pose": None}, r"does not say its keypoints .*Export it from a run again"),
        ("keypoints", {"pose": {"names": ["a"]}}, "does not say its keypoints"),
        ("keypoints", {"input_size": [3, 96, 64]}, "takes crops of 96x64, and its keypoints were trained on 64x64"),
        ("classification", {"classes": None}, "does not say the names of its classes"),
        ("classification", {"classes": ["a", "b"]}, r"2 classes are named, and the network of x\.onnx has 4 outputs"),
    ],
)
def test_what_a_file_does_not_say_is_named(
    task: str, changes: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source(write_checkpoint(tmp_path / "best.safetensors", task))
    monkeypatch.setattr(exported, "load", lambda path, threads: file_of(source, **changes))
    with pytest.raises(UserError, match=message):
        load_served(Path("x.onnx"))


@pytest.mark.slow
def test_a_file_in_onnx_runtime_finds_what_the_network_finds(checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="the extra 'export' is not installed")
    from dynaconv.export import export

    trained, checkpoint = load_trained(checkpoint), tmp_path / "settled.safetensors"
    if trained.task.name == "keypoints":  # with statistics of its norms; else its roundings are too large
        with torch.no_grad():
            for _ in range(10):
                trained.model.train()(torch.randn(8, 3, 64, 64))
    save_weights(checkpoint, trained.model.eval(), trained.about)
    served = load_served(checkpoint)
    if served.task.name == "detection":
        served.options["min_score"] = 0.6
    export(checkpoint, tmp_path / "x.onnx", input="uint8", nms=served.task.name == "detection")
    file = load_served(tmp_path / "x.onnx")
    file.options = served.options
    close(found(file), found(served))
