"""A sweep: what is measured is planned before, refused when impossible, and drawn as it was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dynaconv.bench import BenchResult, BenchSettings
from dynaconv.bench.figure import draw, save
from dynaconv.bench.sweep import HEADER, WIDTHS, Point, plan_sweep
from dynaconv.cli import main

DY = BenchSettings(model="dy_mobilenetv2_100", mode="train", rounds=7)


def point(what: str, value: int, *, timm: float | None = None, memory: bool = True) -> Point:
    facts = {
        "processor": "a processor",
        "torch": "2.x",
        "size": 64,
        "clock": "wall",
        "model_args": {"drop_rate": 0.1},
        "bank_dtype": None,
        "milliseconds_quartiles": {role: [7.0 * value, 9.0 * value] for role in ("static", "ours", "usual", "timm")},
        "ratio_to_static_quartiles": [1.1, 1.3],
        "peak_memory_mib": {"ours": 30.0 * value, "static": 20.0} if memory else None,
    }
    return Point(
        what,
        value,
        BenchResult(
            model="dy_mobilenetv2_035",
            mode="infer",
            batch=value if what == "batch" else 2,
            threads=1,
            device="cpu",
            dtype="float32",
            static_ms=8.0 * value,
            ours_ms=10.0 * value,
            usual_ms=16.0 * value,
            timm_ms=timm,
            ratio_to_static=1.25,
            speedup_over_usual=1.6,
            peak_memory_ratio=1.5 * value if memory else None,
            environment=facts,
        ),
    )


def test_only_the_swept_setting_changes() -> None:
    for what in ("batch", "size", "threads"):
        planned = plan_sweep(DY, what, [4, 2])
        assert [value for value, _ in planned] == [2, 4]
        assert [getattr(each, what) for _, each in planned] == [2, 4]
        assert {(each.model, each.mode, each.rounds) for _, each in planned} == {("dy_mobilenetv2_100", "train", 7)}
    kept = BenchSettings(model="resnet10t", model_args={"method": "condconv"})
    assert [each.model_args for _, each in plan_sweep(kept, "experts", [1, 8])] == [
        {"method": "condconv", "experts": 1},
        {"method": "condconv", "experts": 8},
    ]


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    defaults = {what: [value for value, _ in plan_sweep(DY, what)] for what in ("experts", "batch", "size", "threads")}
    assert defaults["experts"] == [1, 2, 4, 8, 16, 32]
    assert defaults["batch"] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert (defaults["size"][0], defaults["size"][-1]) == (64, 288)
    assert defaults["threads"] == [1, 2, 4]


@pytest.mark.parametrize("model", ["dy_mobilenetv2_100", "dy_mobilenetv2"])
def test_the_model_names_the_family_of_widths(model: str) -> None:
    planned = plan_sweep(BenchSettings(model=model), "width")
    assert [(value, each.model) for value, each in planned] == [
        (35, "dy_mobilenetv2_035"),
        (50, "dy_mobilenetv2_050"),
        (75, "dy_mobilenetv2_075"),
        (100, "dy_mobilenetv2_100"),
    ]


def test_points_are_printed_per_image_and_plain_with_their_value() -> None:
    four = point("batch", 4)
    assert four.cells()[:6] == ["4", "8.00", "10.00", "16.00", "-", "1.25 (1.10 to 1.30)"]
    assert len(four.cells()) == len(WIDTHS) == 1 + len(HEADER)
    assert list(four.plain())[:3] == ["sweep", "value", "model"]
    assert four.plain()["value"] == 4


def test_the_picture_shows_what_was_measured(tmp_path: Path) -> None:
    points = [point("batch", 1, timm=20.0), point("batch", 4), point("batch", 8)]
    times, memory = draw(points).axes
    lines = {str(line.get_label()): line for line in times.get_lines()}
    assert set(lines) == {"best static", "ours", "usual (groups = batch)", "timm"}
    assert list(lines["ours"].get_ydata()) == [10.0, 10.0, 10.0]  # per image
    assert list(lines["timm"].get_xdata()) == [1]
    assert (times.get_xscale(), times.get_ylabel(), times.get_xlabel()) == (
        "log",
        "time per image, ms",
        "batch, images",
    )
    assert [text.get_text() for text in times.get_xticklabels()] == ["1", "4", "8"]
    assert [list(line.get_ydata()) for line in memory.get_lines()] == [[20.0] * 3, [30.0, 120.0, 240.0]]
    styles = {(line.get_linestyle(), line.get_marker()) for line in times.get_lines()}
    assert len(styles) == 4, "grey print must tell the lines apart"
    save(points, tmp_path / "sweep.pdf")
    assert (tmp_path / "sweep.pdf").read_bytes().startswith(b"%PDF")


def test_the_picture_without_memory_has_one_panel_and_says_what_stays() -> None:
    figure = draw([point("width", 35, memory=False), point("width", 100, memory=False)])
    (times,) = figure.axes
    assert times.get_xscale() == "linear"
    title = figure.get_suptitle()
    assert title.startswith("dy_mobilenetv2, inference, batch 2, 64 px, 1 thread, drop_rate 0.1, float32\na processor")


def test_the_command_measures_prints_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "batch.png"
    words = ["bench", "test_resnet", "--size", "32", "--rounds", "2", "--warmup", "0", "--no-memory", "--json"]
    assert main([*words, "--sweep", "batch", "--values", "1,2", "--figure", str(picture)]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert [(each["sweep"], each["value"], each["batch"]) for each in result] == [("batch", 1, 1), ("batch", 2, 2)]
    assert result[0]["environment"]["milliseconds_quartiles"]["ours"][1] > 0
    assert "static" in printed.err, "a sign of life beside the JSON"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_mistakes_are_named_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dynaconv.bench.sweep.bench", lambda _: pytest.fail("measured"))
    for words, text in [
        (["--sweep", "bacth"], "Did you mean 'batch'?"),
        (["--sweep", "batch", "--values", "1,two"], "whole numbers separated by commas"),
        (["--sweep", "batch", "--values", "0,1"], "at least 1"),
        (["--sweep", "batch", "--values", "2,2"], "different whole numbers"),
        (["--sweep", "batch", "--batch", "4"], "batch is 4 and swept too"),
        (["--sweep", "experts", "--arg", "experts=8"], "experts is 8 and swept too"),
        (["--sweep", "threads", "--clock", "processor"], "time of all threads"),
        (["--sweep", "width", "--values", "60"], "some of 35, 50, 75, 100"),
        (["--sweep", "batch", "--figure", "x.jpeg"], ".png or .pdf"),
        (["--sweep", "batch", "--figure", "no/such/folder/x.png"], "no folder"),
        (["--values", "1,2"], "belong to a sweep"),
        (["--sweep", "batch", "--table12"], "one at a time"),
    ]:
        assert main(["bench", "dy_mobilenetv2_100", *words]) == 2, words
        assert text in capsys.readouterr().err
    assert main(["bench", "dy_resnet18", "--sweep", "width"]) == 2
    assert "has no other widths in the zoo" in capsys.readouterr().err
