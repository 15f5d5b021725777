"""One's own network on the command line: every command takes its name, and runs no code that was not named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import dynaconv
from dynaconv.cli import main
from dynaconv.inference.functions import find_function
from dynaconv.tasks.weights import read_weights

FILE = """
from torch import nn

def build(num_classes=10, width=4):
    return nn.Sequential(nn.Conv2d(3, width, 3, 2), nn.ReLU(), nn.Conv2d(width, width, 3), nn.BatchNorm2d(width),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))
"""
NAME = "small_of_tests.py:build"
QUICK = ["--epochs", "1", "--batch-size", "256", "--image-size", "8", "--workers", "0", "--quiet", "--device", "cpu"]
QUICK += ["--set", "curves=false", "--set", "tensorboard=false"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "small_of_tests.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_trained_resumed_evaluated_and_begun_from(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", NAME, "--data", "digits", "--method", "dynamic", *QUICK]
    assert main(words) == 0
    run = "runs/small_of_tests-build-dynamic-digits-seed0"
    kept = json.loads((here / run / "run.json").read_text())
    assert kept["network_file"]["name"] == NAME
    capsys.readouterr()
    assert main([*words, "--resume", "auto"]) == 0
    assert "going on from" in capsys.readouterr().err
    (here / "small_of_tests.py").write_text(FILE + "\n")
    assert main([*words, "--resume", "auto"]) == 0
    assert "is not the one when this run began" in capsys.readouterr().err

    evaluation = ["eval", run, "--data", "digits", "--workers", "0", "--json"]
    assert main(evaluation) == 2
    assert f"a file does not decide what code runs: name the function too, as MODEL or by --model {NAME}" in (
        capsys.readouterr().err
    )
    assert main([*evaluation, "--model", NAME]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 359
    again = ["train", "--data", "digits", *QUICK, "--recipe", f"{run}/run.json"]
    assert main(again) == 2
    assert "a file does not decide what code runs" in capsys.readouterr().err
    assert main([*again, NAME, "--show"]) == 0
    capsys.readouterr()

    assert main(["train", NAME, "--data", "digits", "--method", "dynamic", *QUICK, "--weights", run, "--lr", "0"]) == 2
    words = [*words[:-1], "tensorboard=false", "--weights", run, "--out", "next", "--lr", "1e-9"]
    assert main(words) == 0
    capsys.readouterr()
    began, ended = (read_weights(Path(place) / "best.safetensors")[0] for place in (run, "next"))
    assert all(torch.allclose(ended[name], began[name], atol=1e-6) for name in began if name.endswith("weight"))


def test_evaluated_and_used_by_name(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = find_function(NAME)()
    torch.save(network.state_dict(), "w.pth")
    torch.save(find_function(NAME)(7).state_dict(), "seven.pth")
    on = ["--data", "digits", "--image-size", "8", "--workers", "0", "--json"]
    assert main(["eval", NAME, "--weights", "w.pth", *on]) == 0
    by_name = json.loads(capsys.readouterr().out)
    twin = dynaconv.dynamize(network, noise=0.0, include=torch.nn.Conv2d)
    dynaconv.save(twin, "twin.safetensors", factory=NAME)
    assert main(["eval", NAME, "--weights", "twin.safetensors", *on]) == 0
    assert json.loads(capsys.readouterr().out)["eval_loss"] == pytest.approx(by_name["eval_loss"], rel=1e-4)

    Image.new("RGB", (20, 20), (80, 0, 0)).save("red.png")
    Path("names.txt").write_text("\n".join(f"digit {n}" for n in range(10)))
    words = ["predict", NAME, "red.png", "--weights", "w.pth", "--image-size", "8", "--top", "1"]
    assert main([*words, "--classes", "names.txt"]) == 0
    assert ",digit " in capsys.readouterr().out

    for wrong, message in [
        (["eval", NAME, "--weights", "seven.pth", *on], "6.weight is (7, 4) there and (10, 4) here"),
        (["eval", NAME, "--weights", "none.pth", *on], "There are no weights at none.pth"),
        (["eval", "twin.safetensors", *on], "a file does not decide what code runs"),
        (["eval", "test_resnet", *on], "is a network without weights: give --weights FILE, --pretrained"),
        ([*words, "--classes", "none.txt"], "--classes none.txt cannot be read"),
        ([*words, "--model", NAME], "--model names the function behind a run's weights"),
    ]:
        assert main(wrong) == 2
        found = capsys.readouterr()
        assert message in " ".join(found.err.split())
        assert found.out == ""


@pytest.mark.parametrize("source", [NAME, "torchvision/shufflenet_v2_x0_5", "saved.safetensors"])
def test_counted(here: Path, source: str, capsys: pytest.CaptureFixture[str]) -> None:
    if source.startswith("saved"):
        dynaconv.save(find_function(NAME)(), source, factory=NAME)
        source = f"{NAME} --weights {source}"
    words = ["cost", *source.split(), "--input", "3x32x32", "--format", "json"]
    assert main(words) == 0
    static = json.loads(capsys.readouterr().out)
    assert main([*words, "--method", "dynamic", "--experts", "2"]) == 0
    twin = json.loads(capsys.readouterr().out)
    assert static["madds"]["mixing"] == 0 < twin["madds"]["mixing"]
    assert main([*words, "--experts", "2"]) == 2


def test_compared(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(find_function(NAME)().state_dict(), "w.pth")
    words = ["compare", NAME, "--methods", "dynamic", "--experts", "2", "--seeds", "1", "--train-images", "256"]
    words += [*QUICK[:8], "--quiet", "--device", "cpu", "--weights", "w.pth"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "small_of_tests.py:build on 256 of the 1,438" in " ".join(out.split())
    assert "from w.pth" in " ".join(out.split())
    (folder,) = (here / "runs").iterdir()
    assert folder.name.startswith("compare-small_of_tests-build-digits-")
    settings = json.loads((folder / "settings.json").read_text())
    (here / "small_of_tests.py").write_text(FILE + "\n")
    assert main([*words, "--out", str(folder)]) == 2, "another content of the file is another comparison"
    assert "network_file is" in capsys.readouterr().err
    assert {"network_file", "weights", "weights_file"} <= set(settings)


def test_benched(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", NAME, "--size", "16", "--rounds", "1", "--warmup", "0", "--no-memory", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == NAME
    dynaconv.save(dynaconv.dynamize(find_function(NAME)()), "twin.safetensors", factory=NAME)
    for wrong, message in [
        ("small_of_tests.py:bild", "Did you mean 'build'"),
        ("no_such_network", "There is no model 'no_such_network'"),
        ("twin.safetensors", "a file does not decide what code runs"),
    ]:
        assert main(["bench", wrong]) == 2
        assert message in capsys.readouterr().err
