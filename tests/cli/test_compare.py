"""``dynaconv compare`` as typed: mistakes are sentences with exit code 2, and leave nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from dynaconv.cli import main
from dynaconv.train.run_folder.lock import FolderLock

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = [
    *("test_resnet", "--model-kwargs", "channels=[8,8,8,16]", "--device", "cpu", "--methods", "condconv"),
    *("--experts", "2", "--train-images", "64", "--batch-size", "32", "--epochs", "1", "--seeds", "2", "--quiet"),
]


@pytest.fixture(autouse=True)
def short_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long is measured is not what these tests are about."""
    from dynaconv.analysis import measure

    monkeypatch.setattr(measure, "ROUNDS", measure.FEWEST)


def pictures(folder: Path, classes: int, each: int = 4) -> Path:
    """A folder with class folders of grey pictures."""
    for label in range(classes):
        (folder / f"class{label}").mkdir(parents=True)
        for index in range(each):
            Image.new("RGB", (16, 16), (40 * label + index,) * 3).save(folder / f"class{label}" / f"{index}.png")
    return folder


def refused(words: list[str], out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command, expect an error, return its message; ``out`` must not have come into being."""
    code = main(["compare", *words, "--out", str(out)])
    said = capsys.readouterr()
    assert code == 2, said
    assert "Traceback" not in said.err
    assert said.out == ""
    assert not out.exists()
    return " ".join(said.err.split())


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["mobilnetv2_050"], ["no model 'mobilnetv2_050'", "Did you mean", "'mobilenetv2_050'"]),
        (["test_resnet", "--methods", "dynamik"], ["no method 'dynamik'", "Did you mean 'dynamic'?"]),
        (["test_resnet", "--methods", "static"], ["at least one of dynamic, condconv"]),
        (["test_resnet", "--data", "torch/cifar1"], ["'cifar1'", "Did you mean", "'cifar10'"]),
        (["test_resnet", "--data", "no/such/folder"], ["no data set 'no/such/folder'", "Expected 'digits'"]),
        (["test_resnet", "--experts", "0"], ["experts is 0; expected at least 1"]),
        (["test_resnet", "--experts", "four"], ["--experts is 'four'; expected whole numbers"]),
        (["test_resnet", "--seeds", "0"], ["--seeds is '0'; expected a count of at least 1"]),
        (["test_resnet", "--seeds", "a,b"], ["--seeds is 'a,b'"]),
        (["test_resnet", "--epochs", "0"], ["epochs is 0"]),
        (["test_resnet", "--batch-size", "-3"], ["batch_size is -3"]),
        (["test_resnet", "--lr", "0"], ["lr is 0"]),
        (["test_resnet", "--optimizer", "adamv"], ["no optimizer 'adamv'", "Did you mean", "'adam'"]),
        (["test_resnet", "--set", "momentun=0.9"], ["no setting 'momentun'", "'momentum'"]),
        (["test_resnet", "--set", "momentum"], ["expected NAME=VALUE"]),
        (["test_resnet", "--model-kwargs", "chanels=3"], ["test_resnet cannot be had", "chanels"]),
        (["test_resnet", "--share", "blok"], ["share is 'blok'"]),
        (["test_resnet", "--train-images", "3"], ["train_images is 3; expected 10"]),
        (["test_vit"], ["nothing to replace"]),
        (["test_resnet", "--image-size", "0"], ["image_size is 0"]),
        (["test_resnet", "--image-size", "32x16"], ["image_size is 32x16", "square, expected one number"]),
        (["test_resnet", "--image-size", "32 px"], ["image_size is '32 px'; expected a number"]),
    ],
)
def test_mistakes(words: list[str], parts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused([*words, "--device", "cpu"], tmp_path / "out", capsys)
    for part in parts:
        assert part in said


@pytest.mark.parametrize("option", ["--epoch", "--expert", "--seed"])
def test_an_unknown_option_is_named(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(["test_resnet", option, "3"], tmp_path / "out", capsys)
    assert f"No such option: {option}" in said
    assert f"{option}s" in said


def test_folders_that_hold_nothing_or_one_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    said = refused(["test_resnet", "--data", str(tmp_path / "empty")], tmp_path / "out", capsys)
    assert "no class folders" in said
    one = pictures(tmp_path / "one", classes=1)
    assert "one class only" in refused(["test_resnet", "--data", str(one)], tmp_path / "out", capsys)
    (tmp_path / "file").write_text("x")
    assert "this is a file" in refused(["test_resnet", "--data", str(tmp_path / "file")], tmp_path / "out", capsys)


def test_an_unreadable_image_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = pictures(tmp_path / "data", classes=2, each=10)
    for label in ("class0", "class1"):  # whichever of them are held out, some are trained on
        for index in range(5):
            (folder / label / f"{index}.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    words = ["test_resnet", "--data", str(folder), "--image-size", "16", "--workers", "0", "--device", "cpu"]
    code = main(["compare", *words, "--out", str(out), "--epochs", "1", "--seeds", "1", "--quiet", "--experts", "2"])
    said = capsys.readouterr()
    assert code == 2
    assert "Cannot read the image" in said.err
    assert "Traceback" not in said.err
    assert not list(out.glob("compare.*"))
    assert not list(out.rglob("result.json"))


def test_an_out_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("x")
    said = refused([*SMALL], tmp_path / "file" / "out", capsys)
    assert "Cannot write to --out" in said
    assert main(["compare", *SMALL, "--out", str(tmp_path / "file")]) == 2
    assert (tmp_path / "file").read_text() == "x"


def test_one_process_only(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "without torchrun" in refused([*SMALL], tmp_path / "out", capsys)


def test_answer_in_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole command in this process; the second call, from the results, prints JSON."""
    out = tmp_path / "out"
    assert main(["compare", *SMALL, "--out", str(out)]) == 0
    table = capsys.readouterr().out
    for part in ("method", "params", "MAdds", "static", "condconv", "[95 %]", "2 seeds (0, 1)", "1 epochs", "cpu"):
        assert part in table
    assert main(["compare", *SMALL, "--out", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((out / "compare.json").read_text())
    assert [row["method"] for row in printed["rows"]] == ["static", "condconv"]
    assert main(["compare", *SMALL, "--out", str(out), "--lr", "0.5"]) == 2
    assert "lr is 0.003 there and 0.5 here" in " ".join(capsys.readouterr().err.split())


def test_the_real_command_and_a_folder_in_use(tmp_path: Path) -> None:
    """Another process holds the folder; the command is a process of its own, as typed."""
    out = tmp_path / "out"
    out.mkdir()
    with FolderLock(out):
        done = subprocess.run(
            [sys.executable, "-m", "dynaconv", "compare", *SMALL, "--out", str(out)],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 2, done.stderr
    assert "Another run is writing to" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in out.iterdir()] == [".lock"]


def test_help_names_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())  # lines are broken wherever they end
    for option in ("--data", "--methods", "--experts", "--epochs", "--seeds", "--image-size", "--batch-size", "--json"):
        assert option in text
    assert "default: 10" in text
