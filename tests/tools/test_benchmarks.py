"""`make bench`: slower is said only where the spreads part, and the file keeps what was not run."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dynaconv.bench import BenchResult, BenchSettings
from dynaconv.models import ZOO

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    module = importlib.import_module("benchmarks")
    monkeypatch.setattr(module, "LAYERS", [])
    monkeypatch.setattr(module, "QUICK_LAYERS", [])
    return module


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("benchmark_changes")


def figure(ratio: float, low: float, high: float, *, torch: str = "2.15", **settings: Any) -> dict[str, Any]:
    return {
        "settings": {"model": "net", "batch": 1, "rounds": 20, "warmup": 3, "memory": True, **settings},
        "ratio_to_static": ratio,
        "ratio_to_static_quartiles": [low, high],
        "environment": {"processor": "a processor", "torch": torch},
    }


@pytest.mark.parametrize(
    ("before", "now", "percent", "verdict"),
    [
        ((1.5, 1.4, 1.6), (2.0, 1.7, 2.1), 33.3, "slower"),
        ((1.5, 1.4, 1.6), (1.2, 1.1, 1.3), -20.0, "faster"),
        ((1.5, 1.4, 1.6), (1.8, 1.6, 2.1), 20.0, "within the spread"),  # they touch
        ((1.5, 1.4, 1.6), (1.5, 1.45, 1.55), 0.0, "within the spread"),
    ],
)
def test_the_verdict_needs_spreads_that_part(
    compare: ModuleType, before: tuple[float, ...], now: tuple[float, ...], percent: float, verdict: str
) -> None:
    (change,) = compare.changes({"a": figure(*before)}, {"a": figure(*now)})
    assert (change.before, change.now, change.verdict) == (before[0], now[0], verdict)
    assert change.percent == pytest.approx(percent, abs=0.05)
    assert f"{before[0]:.2f} ->  {now[0]:.2f}" in str(change)
    assert str(change).endswith(verdict)


def test_only_like_is_compared_with_like(compare: ModuleType) -> None:
    old = {"a": figure(1.0, 0.9, 1.1), "b": figure(1.0, 1.0, 1.0, rounds=1), "gone": figure(1.0, 0.9, 1.1)}
    now = {
        "new": figure(3.0, 2.9, 3.1),
        "a": figure(3.0, 2.9, 3.1, batch=2),
        "b": figure(3.0, 2.9, 3.1),
    }
    found = compare.changes(old, now)
    assert [(change.name, change.verdict, change.percent) for change in found[:2]] == [
        ("new", "new", None),
        ("a", "measured otherwise before", None),
    ]
    assert found[2].verdict == "too few rounds to tell"
    (fewer,) = compare.changes({"a": figure(1.0, 0.9, 1.1)}, {"a": figure(3.0, 2.9, 3.1, rounds=10, memory=False)})
    assert fewer.verdict == "slower", "rounds and memory do not change what is measured"


def test_another_machine_is_said_once(compare: ModuleType) -> None:
    old = {name: figure(1.0, 0.9, 1.1) for name in "ab"}
    assert compare.other_machines(old, old) == []
    now = {name: figure(1.0, 0.9, 1.1, torch="2.16") for name in "abc"}
    assert compare.other_machines(old, now) == ["torch: 2.15 -> 2.16"]
    assert compare.changes(old, now)[0].verdict == "within the spread"


def test_cases_have_names_of_their_own_and_known_networks(tool: ModuleType) -> None:
    cases = [*tool.CASES, *tool.COMPILED]
    assert len({tool.name_of(case) for case in cases}) == len(cases)
    assert {case.model for case in cases} <= set(ZOO)
    assert all(case in tool.CASES for case in tool.QUICK)


def answer_of(case: BenchSettings, ratio: float) -> BenchResult:
    from dynaconv.timing import environment

    facts = {
        **environment(),
        "ratio_to_static_quartiles": [ratio, ratio],
        "milliseconds": {"static: eager": 10.0},
        "peak_memory_mib": None,
    }
    return BenchResult(
        **{name: getattr(case, name) for name in ("model", "mode", "batch", "threads", "device", "dtype")},
        static_ms=10.0,
        ours_ms=10.0 * ratio,
        usual_ms=40.0,
        timm_ms=30.0,
        ratio_to_static=ratio,
        speedup_over_usual=2.0,
        peak_memory_ratio=None,
        environment=facts,
    )


def test_figures_are_merged_compared_and_may_fail(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "performance.json"
    run = lambda *words: tool.main(["--quick", "--no-memory", "--out", str(out), *words])  # noqa: E731
    monkeypatch.setattr(tool, "bench", lambda case: answer_of(case, 1.5))
    monkeypatch.setattr(tool, "_committed", lambda _: None)
    assert run() == 0
    assert "nothing to compare with" in capsys.readouterr().out
    committed = json.loads(out.read_text(encoding="utf-8"))["cases"]
    assert list(committed) == [tool.name_of(case) for case in tool.QUICK]
    assert next(iter(committed.values()))["speedup_over_timm"] == 2.0

    monkeypatch.setattr(tool, "_committed", lambda _: committed)
    monkeypatch.setattr(tool, "bench", lambda case: answer_of(case, 1.8))
    assert run("--only", "resnet18") == 0
    assert "+20.0%  slower" in capsys.readouterr().out
    kept = json.loads(out.read_text(encoding="utf-8"))["cases"]
    assert [each["ratio_to_static"] for each in kept.values()] == [1.5, 1.5, 1.8]
    assert run("--only", "resnet18", "--fail-if-slower") == 1
    monkeypatch.setattr(tool, "bench", lambda case: answer_of(case, 1.2))
    assert run("--fail-if-slower") == 0


def test_a_case_that_cannot_run_does_not_stop_the_others(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def some(case: BenchSettings) -> BenchResult:
        if case.model == "condconv_efficientnet_b0":
            raise RuntimeError("outputs differ")
        return answer_of(case, 1.5)

    monkeypatch.setattr(tool, "bench", some)
    monkeypatch.setattr(tool, "_committed", lambda _: None)
    out = tmp_path / "performance.json"
    assert tool.main(["--quick", "--out", str(out)]) == 1
    assert "condconv_efficientnet_b0, infer, batch 1: outputs differ" in capsys.readouterr().err
    assert len(json.loads(out.read_text(encoding="utf-8"))["cases"]) == 2
    with pytest.raises(SystemExit, match="2"):
        tool.main(["--only", "resnet19"])
    assert "no case has 'resnet19'" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("git") is None, reason="no git here")
def test_the_figures_of_the_last_commit_are_read_not_those_of_the_folder(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def git(*words: str) -> None:
        author = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *author, *words], cwd=tmp_path, check=True, capture_output=True)

    monkeypatch.setattr(tool, "REPOSITORY", tmp_path)
    git("init")
    assert tool._commit() is None
    figures = tmp_path / "docs" / "performance.json"
    figures.parent.mkdir()
    figures.write_text('{"cases": {"a": 1}}', encoding="utf-8")
    assert tool._committed("HEAD") is None
    git("add", ".")
    git("commit", "--message", "figures")
    figures.write_text('{"cases": {"a": 2}}', encoding="utf-8")
    assert tool._committed("HEAD") == {"a": 1}
    assert not tool._commit().endswith("with changes"), "figures are no change of the code"
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "new.py").touch()
    assert tool._commit().endswith("with changes")


def test_a_record_holds_what_was_really_measured(tool: ModuleType) -> None:
    from dynaconv.bench import bench

    case = replace(tool.QUICK[0], model="test_resnet", size=32, rounds=2, warmup=0, memory=False)
    made = json.loads(json.dumps(tool.record(case, bench(case), "abc")))
    assert made["settings"]["size"] == 32
    assert made["ratio_to_static_quartiles"][0] <= made["ratio_to_static"] <= made["ratio_to_static_quartiles"][1]
    assert made["environment"]["torch"]
    assert made["commit"] == "abc"
    assert made["milliseconds"]


def test_single_layers_are_kept_beside_the_networks(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small, wrong = tool.LayerCase(8, 3, 2, 5), tool.LayerCase(8, 3, 4, 5, experts=2)
    monkeypatch.setattr(tool, "LAYERS", [small, wrong])
    monkeypatch.setattr(tool, "_committed", lambda _: None)
    out = tmp_path / "performance.json"
    out.write_text('{"cases": {"a": 1}, "layers": {"b": 2}}', encoding="utf-8")
    measure = tool.measure_layer

    def one_is_wrong(case: Any) -> dict[str, Any]:
        if case is wrong:
            raise RuntimeError(f"{case.name}: the output differs")
        found: dict[str, Any] = measure(case, rounds=3, seconds=0.01)
        return found

    monkeypatch.setattr(tool, "measure_layer", one_is_wrong)
    assert tool.main(["--layers", "--out", str(out)]) == 1
    shown = capsys.readouterr()
    assert "3x3, 8, 4x4 maps, batch 5, K 2: the output differs" in shown.err
    kept = json.loads(out.read_text(encoding="utf-8"))
    assert kept["cases"] == {"a": 1}
    assert list(kept["layers"]) == ["b", "3x3, 8, 2x2 maps, batch 5, K 4"]
    found = kept["layers"]["3x3, 8, 2x2 maps, batch 5, K 4"]
    assert found["bound"] == 2.0
    assert found["train"]["quartiles"][0] <= found["train"]["ratio"] <= found["train"]["quartiles"][1]
    assert "times static: infer" in shown.out
    assert "bound 2.00" in shown.out


def test_no_time_is_taken_of_a_wrong_layer(tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = importlib.import_module("benchmark_layers")
    monkeypatch.setattr(layers, "mix", lambda x, bank, routing, geometry: 1.01 * x)
    with pytest.raises(RuntimeError, match="3x3, 8, 2x2 maps, batch 5, K 4: the output differs from the reference"):
        layers.measure_layer(layers.LayerCase(8, 3, 2, 5))


def test_layers_have_names_of_their_own(tool: ModuleType) -> None:
    layers = importlib.import_module("benchmark_layers")
    assert len({case.name for case in layers.LAYERS}) == len(layers.LAYERS)
    assert set(layers.QUICK_LAYERS) <= set(layers.LAYERS)
