"""The kept checkpoints: whole, as their page says, taken by the commands, and predicting what they predicted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from dynaconv.cli import main
from dynaconv.layers import DynamicLayer
from dynaconv.tasks.classification.batches import Normalise, collate
from dynaconv.tasks.classification.transforms import evaluation_transform
from dynaconv.train.run_folder.weights import Trained, load_trained

FOLDER = Path(__file__).resolve().parents[1] / "checkpoints"
METHODS = {"static": (None, None), "condconv": ("condconv", 8), "dynamic": ("dynamic", 4)}
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
MOST_BYTES = 1_000_000

# Of the pictures below: the predicted class, and the logits of the first three classes.
EXPECTED = {
    "static": [
        ("bird", [4.8154, -10.6791, 8.8532]),
        ("bird", [1.7699, -5.2018, 4.1584]),
        ("airplane", [2.3904, -6.1829, -0.0726]),
    ],
    "condconv": [
        ("bird", [3.6108, -16.2931, 11.9922]),
        ("bird", [-0.4966, -5.6644, 1.6129]),
        ("deer", [-0.4828, -5.9744, -0.5078]),
    ],
    "dynamic": [
        ("bird", [0.3182, -11.0664, 6.0178]),
        ("bird", [0.6863, -4.7817, 1.8784]),
        ("airplane", [2.0438, -5.0956, 0.7878]),
    ],
}
RIGHT = {"static": 689, "condconv": 733, "dynamic": 723}  # of every tenth test picture


def path(name: str) -> Path:
    return FOLDER / f"cifar10_small_resnet_{name}.safetensors"


@pytest.fixture(scope="module", params=METHODS)
def kept(request: pytest.FixtureRequest) -> tuple[str, Trained]:
    return request.param, load_trained(path(request.param))


def made_pictures() -> torch.Tensor:
    """Three pictures by formula, the same on every machine: stripes, rings, a gradient; normalised."""
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    radius = ((rows - 16) ** 2 + (columns - 16) ** 2).sqrt()
    waves = [torch.sin(columns / 2), torch.cos(radius / 3), rows / 16 - 1]
    channels = [[wave, 0.5 * wave, -wave] for wave in waves]
    return torch.stack([torch.stack(three) for three in channels])


def test_the_folder_holds_what_its_page_says() -> None:
    sums = dict(reversed(line.split()) for line in (FOLDER / "SHA256SUMS").read_text().splitlines())  # type: ignore[misc]
    assert set(sums) == {path(name).name for name in METHODS} == {file.name for file in FOLDER.glob("*.safetensors")}
    page = (FOLDER / "README.md").read_text()
    for name, (method, experts) in METHODS.items():
        file = path(name)
        assert hashlib.sha256(file.read_bytes()).hexdigest() == sums[file.name]
        assert file.stat().st_size < MOST_BYTES
        trained = load_trained(file)
        row = next(line for line in page.splitlines() if line.startswith(f"| `{file.name}` |"))
        cells = [cell.strip() for cell in row.split("|")[2:-1]]
        metrics = trained.about["metrics"]
        assert cells == [
            "small_resnet",
            "static" if method is None else f"{method}, K={experts}",
            f"{sum(parameter.numel() for parameter in trained.model.parameters()):,}",
            f"{file.stat().st_size:,}",
            f"{100 * metrics['top1']:.2f}",
            f"{100 * metrics['top5']:.2f}",
        ]


def test_a_file_says_what_it_is(kept: tuple[str, Trained]) -> None:
    name, trained = kept
    method, experts = METHODS[name]
    about: dict[str, Any] = trained.about
    assert trained.classes == CLASSES
    assert about["preprocess"]["image_size"] == 32
    assert (about["model"]["method"], about["model"]["experts"]) == (method, experts)
    assert about["data"] == "cifar10"
    assert (about["recipe"]["epochs"], about["recipe"]["seed"], about["train_images"]) == (30, 0, 50_000)
    layers = [layer for layer in trained.model.modules() if isinstance(layer, DynamicLayer)]
    assert {layer.experts for layer in layers} == ({experts} if experts else set())


def test_predictions_of_fixed_pictures(kept: tuple[str, Trained]) -> None:
    name, trained = kept
    with torch.no_grad():
        logits = trained.model(made_pictures())
    for row, (predicted, three) in zip(logits, EXPECTED[name], strict=True):
        assert CLASSES[int(row.argmax())] == predicted
        torch.testing.assert_close(row[:3], torch.tensor(three), rtol=0, atol=5e-3)


def test_real_pictures(kept: tuple[str, Trained], shared: Path) -> None:
    """Every tenth test picture of CIFAR-10: as many are right as were when the file was kept, but for rounding."""
    name, trained = kept
    folder = shared / "data" / "cifar10"
    if not (folder / "manifest.json").is_file():
        pytest.skip("no CIFAR-10 in the folder 'shared'")
    task: Any = trained.task
    transform, normalise = evaluation_transform(task.preprocess), Normalise(task.preprocess)
    right = images = 0
    for pictures, kinds in batches(folder):
        examples = [(transform(picture), kind) for picture, kind in zip(pictures, kinds, strict=True)]
        inputs, labels = normalise(collate(examples), torch.device("cpu"))
        with torch.no_grad():
            logits = trained.model(inputs)
        right += int((logits.argmax(dim=1) == labels).sum())
        images += len(labels)
    assert images == 1000
    assert abs(right - RIGHT[name]) <= 3
    assert right / images == pytest.approx(trained.about["metrics"]["top1"], abs=0.04)


def batches(folder: Path) -> Iterator[tuple[list[Image.Image], list[int]]]:
    """Every tenth picture of the test sheets, which have 50 rows of 100 pictures."""
    for file in json.loads((folder / "manifest.json").read_text())["files"]:
        if file["split"] != "test":
            continue
        labels = [label for label, many in file["labels_rle"] for _ in range(many)]
        with Image.open(folder / file["file"]) as sheet:
            whole = sheet.convert("RGB")
        places = range(0, len(labels), 10)
        corners = [(32 * (place % 100), 32 * (place // 100)) for place in places]
        yield [whole.crop((x, y, x + 32, y + 32)) for x, y in corners], labels[::10]


def test_commands_take_it(kept: tuple[str, Trained], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, _ = kept
    for split in ("train", "val"):
        for number, kind in enumerate(CLASSES):
            (tmp_path / split / kind).mkdir(parents=True)
            Image.new("RGB", (32, 32), (20 * number, 90, 200)).save(tmp_path / split / kind / "0.png")
    common = ["--device", "cpu", "--threads", "1"]
    assert main(["eval", str(path(name)), "--data", str(tmp_path), "--workers", "0", "--json", *common]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 10
    assert main(["predict", str(path(name)), str(tmp_path / "val" / "cat" / "0.png"), *common]) == 0
    assert any(kind in capsys.readouterr().out for kind in CLASSES)
