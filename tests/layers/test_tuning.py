"""Measured once, kept in a file, followed by the plan: and never another result than by rule."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import dynaconv
from dynaconv import DynamicConv2d, DynamicLinear
from dynaconv.kernels import cpu
from dynaconv.layers import tuning
from dynaconv.ops import choose, measured
from tolerances import assert_close


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("DYNACONV_CACHE", str(tmp_path))
    yield tmp_path
    measured.forget()


def network() -> nn.Module:
    convolutions = DynamicConv2d(4, 8, 3, padding=1), nn.ReLU(), DynamicConv2d(8, 6, 1)
    return nn.Sequential(*convolutions, nn.Flatten(), DynamicLinear(6 * 36, 5))


def stored(folder: Path) -> dict[str, dict[str, float]]:
    (file,) = folder.glob("strategies-*.json")
    return json.loads(file.read_text())["times"]


def test_every_layer_is_timed_and_the_plan_follows(folder: Path) -> None:
    model, x = network(), torch.randn(3, 4, 6, 6)
    by_rule = model(x)
    found = dynaconv.tune(model, x, rounds=1)
    assert [each.layer for each in found] == ["0", "2", "4"]
    able = {"matmul", "loop", "grouped"} | ({"tiled"} if cpu.why_not() is None else set())
    assert set(found[1].times) == able
    assert all(each.fastest == min(each.times, key=lambda name: each.times[name]) for each in found)
    assert len(stored(folder)) == 3
    assert_close(model(x), by_rule)
    # Whatever was measured is what runs: hold the clock's verdict against its opposite.
    for each, (call, times) in zip(found, measured._known.items(), strict=True):
        slowest = max(times, key=lambda name: times[name])
        measured._known[call] = {**times, slowest: 0.0}
        assert choose(call) == slowest, each
    plan = model[0].plan(x.requires_grad_(False))
    assert "measured here: 0.00 ms" in plan.why
    assert all(
        "measured here" in reason or "possible" not in reason or "slower" in reason or name == "experts"
        for name, reason in plan.others.items()
    )
    assert_close(model(x), by_rule)


def test_what_was_measured_is_not_followed_where_it_cannot_run() -> None:
    """Once NaN: float32 kernels of our own, measured as the fastest, then taken under autocast."""
    model, x = nn.Sequential(DynamicConv2d(8, 8, 3, padding=1, groups=8)), torch.randn(2, 8, 6, 6)
    x = x.to(memory_format=torch.channels_last)
    dynaconv.tune(model, x, rounds=1)
    for call, times in list(measured._known.items()):
        measured._known[call] = {**times, next(iter(times)): 1e-6}
    with torch.autocast("cpu", torch.bfloat16):
        y = model(x)
        assert "measured" not in model[0].plan(x).why
    assert_close(y, model(x), dtype=torch.bfloat16)


def test_a_strategy_that_no_longer_exists_is_forgotten_and_a_later_one_is_timed(folder: Path) -> None:
    model, x = network(), torch.randn(3, 4, 6, 6)
    dynaconv.tune(model, x, rounds=1)
    (file,) = folder.glob("strategies-*.json")
    written = json.loads(file.read_text())
    for times in written["times"].values():
        times["quick"] = 1e-6  # of another version, and the fastest by far
        del times["loop"]  # as if it had come later
    file.write_text(json.dumps(written))
    measured.forget()
    found = dynaconv.tune(model, x, rounds=1)
    assert all("loop" in each.times and "quick" not in each.times for each in found)
    assert all("quick" not in times for times in stored(folder).values())


def test_what_the_rules_choose_is_timed_too() -> None:
    layer = DynamicLinear(160, 160)
    (found,) = dynaconv.tune(layer, torch.randn(64, 160), rounds=1)
    assert found.rule == ("experts" if cpu.why_not() is None else "branches")
    assert found.rule in found.times


def test_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = network(), torch.randn(2, 4, 6, 6)
    first = dynaconv.tune(model, x, rounds=1)
    measured.forget()  # as in another process
    monkeypatch.setattr(tuning, "milliseconds", lambda *args: pytest.fail("measured again"))
    assert dynaconv.tune(model, x, rounds=1) == first


def test_training_and_inference_are_different_calls(folder: Path) -> None:
    model, x = network(), torch.randn(2, 4, 6, 6)
    dynaconv.tune(model, x, rounds=1)
    with torch.no_grad():
        dynaconv.tune(model, x, rounds=1)
    assert len(stored(folder)) == 6


def test_other_shapes_keep_the_rules() -> None:
    model = network()
    dynaconv.tune(model, torch.randn(2, 4, 6, 6), rounds=1)
    assert "measured" not in model[0].plan(torch.randn(5, 4, 6, 6)).why


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"format": 1, "times": {}}', '{"format": 2, "times": {"x": {"loop": "y"}}}']
)
def test_a_damaged_file_is_measured_anew(folder: Path, text: str) -> None:
    model, x = network(), torch.randn(2, 4, 6, 6)
    measured.cache_file().write_text(text)
    dynaconv.tune(model, x, rounds=1)
    assert len(stored(folder)) == 3


def test_without_a_folder_to_write_to_it_still_tunes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DYNACONV_CACHE", str(tmp_path / "file"))
    assert len(dynaconv.tune(network(), torch.randn(2, 4, 6, 6), rounds=1)) == 3


def test_only_layers_that_leave_the_choice_are_timed() -> None:
    model = network()
    model[0].strategy = "loop"
    assert [each.layer for each in dynaconv.tune(model, torch.randn(2, 4, 6, 6), rounds=1)] == ["2", "4"]


def test_nothing_to_tune() -> None:
    with pytest.raises(ValueError, match="no dynamic layer ran"):
        dynaconv.tune(nn.Conv2d(3, 4, 1), torch.randn(1, 3, 5, 5))
    with pytest.raises(TypeError, match=r"expected a torch\.nn\.Module"):
        dynaconv.tune("resnet18", torch.randn(1, 3, 5, 5))  # type: ignore[arg-type]


def test_one_line_says_what_was_found() -> None:
    (found,) = dynaconv.tune(DynamicConv2d(4, 8, 1), torch.randn(2, 4, 6, 6), rounds=1)
    assert f": {found.fastest} (" in str(found)
    assert "by rule matmul" in str(found)
