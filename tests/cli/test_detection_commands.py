"""``train``, ``eval`` and ``predict`` of boxes, as a user types them."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from dynaconv.cli import main
from tasks.coco_files import write_coco

pytest.importorskip("faster_coco_eval", reason="the extra 'detection' is not installed")

NETWORK = "ssd300_condconv_mobilenetv1_050"
QUICK = ["--epochs", "1", "--batch-size", "4", "--image-size", "64", "--workers", "0", "--quiet", "--device", "cpu"]
QUICK += ["--arg", "experts=2", "--set", "curves=false", "--no-tensorboard"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One epoch; the task follows from the network's name."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", NETWORK, "--data", str(data), "--out", str(out), *QUICK]) == 0
    return out


def test_a_run_leaves_average_precision(run: Path) -> None:
    rows = list(csv.DictReader((run / "log.csv").read_text().splitlines()))
    assert {"ap", "ap50", "ap75", "ar100"} <= set(rows[0])
    assert not {"top1", "top5"} & set(rows[0])
    about = json.loads((run / "run.json").read_text())
    assert about["training data"].startswith("8 pictures, 15 objects, sha256 ")


def test_it_goes_on_and_refuses_other_annotations(data: Path, run: Path, tmp_path: Path) -> None:
    words = ["train", NETWORK, "--out", str(run), *QUICK, "--resume", "auto"]
    assert main([*words, "--data", str(data)]) == 0
    other = write_coco(tmp_path, train=9)
    assert main([*words, "--data", str(other)]) == 2


def test_eval_measures_a_folder_and_one_file(data: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(run), "--data", str(data), "--workers", "0", "--json"]) == 0
    held = json.loads(capsys.readouterr().out)
    assert (held["images"], 0 <= held["ap"] <= 1) == (4, True)
    file = str(data / "instances_train.json")
    assert main(["eval", str(run), "--data", file, "--workers", "0"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("AP ")
    assert "on 8 images of" in " ".join(text.split())


def test_predict_writes_boxes_and_draws_them(
    data: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = [str(data / f"images/{number}.png") for number in range(3)]
    out, drawn = tmp_path / "found.json", tmp_path / "drawn"
    words = ["predict", str(run), *pictures, "--out", str(out), "--draw", str(drawn), "--top", "5"]
    assert main([*words, "--min-score", "0"]) == 0
    rows = json.loads(out.read_text())
    assert [row["file"] for row in rows] == pictures
    assert all(len(row["boxes"]) <= 5 for row in rows)
    assert {len(one["box"]) for row in rows for one in row["boxes"]} == {4}
    assert sorted(path.name for path in drawn.iterdir()) == ["0.png", "1.png", "2.png"]
    with Image.open(drawn / "0.png") as picture:
        assert picture.size == (80, 60)
    assert main(["predict", str(run), pictures[0], "--min-score", "1"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table == ["file,class,score,x1,y1,x2,y2,error", f"{pictures[0]},,,,,,,"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task", "detektion"], "Did you mean 'detection'"),
        (["--set", "mixup=0.2"], "There is no setting 'mixup'"),
        (["--image-size", "64x48"], "detectors see squares"),
    ],
)
def test_mistakes_are_one_line(
    data: Path, tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["train", NETWORK, "--data", str(data), "--out", str(tmp_path / "run"), *QUICK, *words])
    assert code == 2
    said = capsys.readouterr().err
    assert message in " ".join(said.split())
    assert "Traceback" not in said


def test_broken_annotations_end_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (write_coco(tmp_path) / "instances_val.json").write_text('{"images": [')
    assert main(["train", NETWORK, "--data", str(tmp_path), "--out", str(tmp_path / "run"), *QUICK]) == 2
    said = capsys.readouterr().err
    assert "instances_val.json is not whole JSON" in " ".join(said.split())
    assert "Traceback" not in said


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_processes_train_and_measure(data: Path, tmp_path: Path) -> None:
    """A run of two processes ends with the precision that one process measures of its last weights."""
    out = tmp_path / "run"
    words = ["-m", "dynaconv", "train", NETWORK, "--data", str(data), "--out", str(out), *QUICK, "--threads", "1"]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([sys.executable, *launch, *words, "--epochs", "2"], check=True)
    rows = list(csv.DictReader((out / "log.csv").read_text().splitlines()))
    assert len(rows) == 2
    words = ["-m", "dynaconv", "eval", str(out / "last.safetensors"), "--data", str(data), "--json", "--device", "cpu"]
    alone = json.loads(subprocess.check_output([sys.executable, *words, "--workers", "0"], text=True))
    for name in ("ap", "ap50", "ap75", "ar100"):
        assert float(rows[-1][name]) == pytest.approx(alone[name], abs=1e-6), name


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_processes_measure_what_one_does(data: Path, run: Path, tmp_path: Path) -> None:
    """Of four pictures in batches of three the second process has one."""
    words = ["-m", "dynaconv", "eval", str(run), "--data", str(data), "--workers", "0", "--batch-size", "3", "--json"]
    words += ["--device", "cpu"]
    alone = json.loads(subprocess.check_output([sys.executable, *words], text=True))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    together = subprocess.check_output([sys.executable, *launch, *words], text=True)
    assert json.loads(together[together.index("{") :]) == alone
