"""``dynaconv inspect`` as typed: its files and tables, and exit 2 with one sentence for a mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch

import dynaconv.models  # noqa: F401 - makes the papers' networks known to timm
from analysis.routes import flat_images, weights
from dynaconv.cli import main


def test_from_the_command_to_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, run = flat_images(tmp_path / "data"), weights(tmp_path / "best.safetensors")
    words = ["inspect", str(run), "--data", str(data), "--workers", "0", "--shown", "3", "--intervene", "--quiet"]
    assert main([*words, "--device", "cpu", "--classes", "black,white"]) == 0
    out = capsys.readouterr().out
    for expected in ("layer1.0 (", "shuffle across images", "top-1, %", "lies between the classes"):
        assert expected in out
    made = {file.name for file in (tmp_path / "inspect").iterdir()}
    assert {"inspect.html", "inspect.json", "routing.parquet", "classes-by-depth.png", "experts.svg"} <= made
    assert not [name for name in made if name.endswith(".tmp")]
    plain = json.loads((tmp_path / "inspect" / "inspect.json").read_text())
    assert plain["class_images"] == [4, 4, 4]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["static.safetensors", "--data", "data"], "it has no dynamic layer"),
        (["best.safetensors", "--data", "other"], "Expected the same names in the same order"),
        (["nothing.safetensors", "--data", "data"], "There are no weights at"),
        (["condconv_mobilenetv1_025", "--data", "data"], "is a network without weights: give --weights FILE"),
        (
            ["best.safetensors", "--data", "data", "--weights", "best.safetensors"],
            "is a run, which has its own weights",
        ),
        (["best.safetensors", "--data", "data", "--classes", "blck"], "Did you mean 'black'?"),
        (["best.safetensors", "--data", "data", "--out", "best.safetensors"], "best.safetensors"),
        (["nan.safetensors", "--data", "data"], "are not finite for 12 of 12 images"),
    ],
)
def test_mistakes_take_one_sentence(
    words: list[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    flat_images(tmp_path / "data")
    flat_images(tmp_path / "other", 1, ("cat", "dog", "fox"))
    weights(tmp_path / "best.safetensors")
    weights(tmp_path / "static.safetensors", method=None)
    weights(tmp_path / "nan.safetensors", router=float("nan"))
    assert main(["inspect", *words, "--workers", "0", "--quiet", "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert "Traceback" not in error


def test_a_network_by_name_with_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = flat_images(tmp_path / "data", 1)
    network = timm.create_model("dy_mobilenetv2_035", num_classes=3, width_multiplier=0.1)
    torch.save(network.state_dict(), "weights.pth")
    words = ["inspect", "dy_mobilenetv2_035", "--arg", "width_multiplier=0.1", "--weights", "weights.pth"]
    common = ["--image-size", "32", "--workers", "0", "--quiet", "--device", "cpu", "--out", "out"]
    assert main([*words, "--data", str(data), *common]) == 0
    found = json.loads((tmp_path / "out" / "inspect.json").read_text())
    assert (found["network"], found["images"]) == ("dy_mobilenetv2_035", 3)
    assert {router["experts"] for router in found["routers"]} == {4}
