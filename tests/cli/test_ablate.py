"""``dynaconv ablate`` as typed: the list, the table, and mistakes that are sentences with exit code 2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dynaconv.analysis.studies import STUDIES
from dynaconv.cli import main

SMALL = [
    *("ablate", "sigmoid", "--data", "digits", "--train-images", "64", "--batch-size", "32", "--width", "0.125"),
    *("--seeds", "1", "--epochs", "1", "--device", "cpu", "--quiet"),
]


@pytest.fixture(autouse=True)
def short_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long is measured is not what these tests are about."""
    from dynaconv.analysis import measure

    monkeypatch.setattr(measure, "ROUNDS", 1)
    monkeypatch.setattr(measure, "FEWEST", 1)


def test_list_has_a_line_for_every_study(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ablate", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split()[0] for line in lines] == list(STUDIES)
    assert all(study.title in line for study, line in zip(STUDIES.values(), lines, strict=True))
    assert main(["ablate", "--list", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [arm["slug"] for arm in told[0]["arms"]] == [
        *("static", "condconv", "dynamic", "wide-throughput", "wide-parameters")
    ]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ([], ["Which study?", "--list"]),
        (["temprature", "--data", "digits"], ["no study 'temprature'", "Did you mean 'temperature'"]),
        (["sigmoid"], ["Which data?"]),
        (["sigmoid", "--data", "no/such/folder"], ["no data set 'no/such/folder'"]),
        (["sigmoid", "--data", "digits", "--arms", "softmx"], ["no arm 'softmx'", "'softmax'"]),
        (["sigmoid", "--data", "digits", "--model", "smal_resnet"], ["no model 'smal_resnet'", "'small_resnet'"]),
        (["sigmoid", "--data", "digits", "--width", "0"], ["width is 0"]),
        (["sigmoid", "--data", "digits", "--arg", "width=3"], ["no argument 'width'"]),
        (["sigmoid", "--data", "digits", "--seeds", "0"], ["--seeds is '0'"]),
        (["sigmoid", "--data", "digits", "--set", "epoch=3"], ["no setting 'epoch'"]),
        (["sigmoid", "--data", "digits", "--model", "dy_resnet10"], ["dy_resnet10 is dynamic as it is", "static=True"]),
        (
            ["evidence", "--data", "digits", "--model", "mobilenetv2_035", "--epochs", "1"],
            ["widens mobilenetv2_035", "no width_multiplier", "--arms static,condconv,dynamic"],
        ),
        (["routing", "--data", "digits", "--model", "test_resnet"], ["cannot be had"]),
        (
            ["temperature", "--data", "digits", "--arg", "static=True", "--epochs", "1"],
            ["varies what is dynamic", "with --arg static=True nothing is", "Leave that argument out"],
        ),
        (
            ["routing", "--data", "digits", "--arg", "routing=single", "--epochs", "1"],
            ["study routing are one network", "by --arg routing=single", "Leave out what makes them equal"],
        ),
        (["keypoints", "--data", "digits"], ["digits"]),
        (["sigmoid", "--data", "digits", "--train-images", "3"], ["train_images is 3"]),
    ],
)
def test_mistakes(words: list[str], parts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["ablate", *words, "--out", str(out)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    for part in parts:
        assert part in " ".join(said.err.split())
    assert not out.exists()


def test_table_then_json_from_the_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main([*SMALL, "--out", str(out)]) == 0
    table = capsys.readouterr().out
    for part in ("arm", "params", "sigmoid, K=4", "softmax, K=4", "one seed shows nothing", "section 4.1", "1 epochs"):
        assert part in table
    assert main([*SMALL, "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((out / "ablate.json").read_text())


def test_one_process_only(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main([*SMALL, "--out", str(tmp_path / "out")]) == 2
    assert "ablate runs in one process" in capsys.readouterr().err
