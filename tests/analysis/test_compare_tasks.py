"""Comparisons of detectors and keypoint networks: the same engine, the task's metric, the paper's dynamic twin."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dynaconv.analysis import CompareSettings, measure
from dynaconv.analysis.arms import dynamic_arm, static_arm
from dynaconv.analysis.settings import static_name
from dynaconv.analysis.statistics import difference_of
from dynaconv.cli import main
from dynaconv.errors import UserError
from dynaconv.models import TWINS
from dynaconv.tasks import task_class
from dynaconv.train import TrainSettings
from dynaconv.train.settings import settings_class
from tasks.coco_files import write_coco
from tasks.keypoints.files import write_data

pytest.importorskip("faster_coco_eval", reason="the extra 'detection' is not installed")

QUICK = ["--epochs", "1", "--seeds", "1", "--device", "cpu", "--quiet", "--experts", "2", "--workers", "0"]
QUICK += ["--batch-size", "4", "--opt", "adamw", "--lr", "1e-3", "--threads", "1"]


@pytest.fixture(autouse=True)
def short_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long is measured is not what these tests are about."""
    monkeypatch.setattr(measure, "FEWEST", 1)
    monkeypatch.setattr(measure, "ROUNDS", 1)


@pytest.mark.parametrize(
    ("words", "write", "method"),
    [
        (["ssd300_condconv_mobilenetv1_050", "--image-size", "64"], write_coco, "condconv"),
        (["keypoints_b_mobilenetv2_050", "--image-size", "32x64"], write_data, "dynamic"),
    ],
)
def test_a_comparison(words: list[str], write: Any, method: str, tmp_path: Path) -> None:
    """The metric, its files and its baseline are the task's; either twin's name means the pair."""
    data = write(tmp_path / "data")
    out = tmp_path / "out"
    assert main(["compare", *words, "--data", str(data), "--out", str(out), *QUICK]) == 0
    plain = json.loads((out / "compare.json").read_text())
    assert plain["metric"]["name"] == "ap"
    assert plain["backbone"] in TWINS
    assert "ap" in plain["baseline"]
    static, dynamic = plain["rows"]
    assert (static["method"], dynamic["method"], dynamic["experts"]) == ("static", method, 2)
    assert dynamic["parameters"] > static["parameters"]
    assert static["frozen"] and dynamic["frozen"], "the latency is that of networks that are served"  # noqa: PT018
    assert len(dynamic["ap"]) == 1
    assert dynamic["difference"]["per_seed"] == pytest.approx(
        [ours - theirs for ours, theirs in zip(dynamic["ap"], static["ap"], strict=True)]
    )
    assert dynamic["difference"]["test_margin"] is None
    kept = json.loads((out / "runs" / "static-seed0" / "result.json").read_text())
    assert kept["ap"] == pytest.approx(100 * kept["metrics"]["ap"])
    assert list(csv.DictReader((out / "compare.csv").read_text().splitlines()))[1]["ap_seed0"]
    assert "AP, %" in (out / "compare.md").read_text()


@pytest.mark.parametrize("name", ["ssd300_mobilenetv1_050", "keypoints_b_mobilenetv2_050"])
def test_named_twins_begin_alike(name: str, tmp_path: Path) -> None:
    """Equal stem, normalisation and predictors; the first expert is the static kernel, the others are drawn anew."""
    task = "detection" if name.startswith("ssd") else "keypoints"
    root = write_coco(tmp_path) if task == "detection" else write_data(tmp_path)
    data = task_class(task).open_data(str(root), image_size=64)
    settings = CompareSettings(backbone=name, task=task, training=settings_class(task)())
    static = static_arm(settings).build(settings, data, seed=4).state_dict()
    twin = dynamic_arm(settings, TWINS[name][0], 3).build(settings, data, seed=4).state_dict()
    banks = [tensor for tensor in static if twin[tensor].shape != static[tensor].shape]
    assert banks
    for tensor, value in static.items():
        assert torch.equal(twin[tensor][0] if tensor in banks else twin[tensor], value), tensor
    assert not torch.equal(twin[banks[0]][0], twin[banks[0]][1])


def test_settings_must_be_the_tasks() -> None:
    with pytest.raises(UserError, match=r"expected DetectionSettings, which settings_class\('detection'\)"):
        CompareSettings(backbone="ssd300_mobilenetv1_050", task="detection", training=TrainSettings())
    with pytest.raises(UserError, match=r"no task 'detektion'.*'detection'"):
        CompareSettings(task="detektion")


def test_options_of_other_tasks_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = write_coco(tmp_path / "data"), tmp_path / "out"
    words = ["compare", "ssd300_mobilenetv1_050", "--data", str(data), "--out", str(out), *QUICK]
    assert main([*words, "--train-images", "4"]) == 2
    assert "task detection has no option 'train_images'" in " ".join(capsys.readouterr().err.split())
    assert not out.exists()


def test_either_name_means_the_pair() -> None:
    for static, (_, twin) in TWINS.items():
        assert static_name(twin) == static_name(static) == static
    assert static_name("resnet18") == "resnet18"


def test_interval_of_a_metric_that_is_no_mean() -> None:
    """Two differences 1 and 3: mean 2, t(0.975, 1) * sqrt(2) / sqrt(2) = 12.706 to either side."""
    found = difference_of([11.0, 23.0], [10.0, 20.0])
    assert found.per_seed == (1.0, 3.0)
    assert (found.mean, found.low, found.high) == pytest.approx((2.0, 2.0 - 12.7062, 2.0 + 12.7062), abs=1e-3)
    assert found.test_margin is None
    assert difference_of([1.0], [2.0]).low is None
    with pytest.raises(ValueError, match="1 runs of the method and 2 static ones"):
        difference_of([1.0], [1.0, 2.0])
