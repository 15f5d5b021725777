"""The benchmark compares equal things in turns, and says nothing where outputs differ."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from dynaconv.bench import BenchSettings, bench
from dynaconv.bench import contenders as contenders_module
from dynaconv.bench.contenders import Contender, check_equal, contenders, make_step
from dynaconv.bench.memory import peak_memory
from dynaconv.bench.run import make_input
from dynaconv.bench.table12 import PUBLISHED, table12
from dynaconv.cli import main
from dynaconv.errors import RunError
from dynaconv.timing import interleave, quartiles, ratios

KEYS = [
    *("model", "mode", "batch", "threads", "device", "dtype", "static_ms", "ours_ms", "usual_ms", "timm_ms"),
    *("ratio_to_static", "speedup_over_usual", "peak_memory_ratio", "environment"),
]
SMALL = BenchSettings(model="dy_mobilenetv2_035", size=32, rounds=3, warmup=1, memory=False)


def test_json_has_the_documented_keys_and_figures_that_agree(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "dy_mobilenetv2_035", "--size", "32", "--rounds", "3", "--batch", "2", "--no-memory", "--json"]
    assert main(words) == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result) == KEYS
    assert (result["model"], result["mode"], result["batch"], result["threads"]) == (
        "dy_mobilenetv2_035",
        "infer",
        2,
        1,
    )
    assert min(result["static_ms"], result["ours_ms"], result["usual_ms"]) > 0
    assert result["timm_ms"] is None
    assert result["peak_memory_ratio"] is None
    facts = result["environment"]
    assert set(facts["forms"]) == {"static", "ours", "usual"}
    statics = [value for name, value in facts["milliseconds"].items() if name.startswith("static")]
    assert result["static_ms"] == pytest.approx(min(statics), abs=1e-3)
    assert facts["torch"] == torch.__version__


def test_timm_stands_beside_a_network_it_has() -> None:
    result = bench(replace(SMALL, model="condconv_efficientnet_b0", batch=2, rounds=1))
    assert result.timm_ms is not None
    assert result.timm_ms > 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_training_compares_outputs_with_the_same_dropout(dtype: str) -> None:
    result = bench(replace(SMALL, model="dy_mobilenetv2_035", mode="train", batch=4, dtype=dtype, rounds=1))
    assert result.environment["forms"]["ours"] in ("eager", "channels_last")
    assert math.isfinite(result.ratio_to_static)


def test_any_network_of_timm_is_made_dynamic() -> None:
    result = bench(replace(SMALL, model="resnet10t", model_args={"experts": 2}, rounds=1))
    assert result.ratio_to_static > 0


def test_nothing_is_printed_when_outputs_differ(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = contenders_module._usual

    def wrong(*arguments: object) -> list[Contender]:
        (made,) = right(*arguments)  # type: ignore[arg-type]
        with torch.no_grad():
            made.network.classifier.weight.add_(1.0)
        return [made]

    monkeypatch.setattr(contenders_module, "_usual", wrong)
    assert main(["bench", "dy_mobilenetv2_035", "--size", "32", "--rounds", "1", "--no-memory", "--json"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "computes something else" in printed.err
    assert "Nothing was timed" in printed.err


def test_equality_is_within_static_and_within_dynamic() -> None:
    one, other = nn.Linear(3, 2), nn.Linear(3, 2)
    x = torch.randn(4, 3)
    make = lambda role, network: (Contender(role, "", network, torch.contiguous_format), lambda: network(x))  # noqa: E731
    assert (
        check_equal([make("static", one), make("ours", other), make("usual", other)], "infer", "float32", None) == 0.0
    )
    with pytest.raises(RunError, match="ours"):
        check_equal([make("static", one), make("ours", one), make("usual", other)], "infer", "float32", None)
    assert check_equal([make("ours", one), make("usual", other)], "infer", "float32", "int8") > 0.0


def test_runs_in_turns_and_forgets_the_warm_up() -> None:
    order: list[str] = []
    times = interleave([lambda: order.append("a"), lambda: order.append("b")], rounds=3, warmup=2)
    assert order == ["a", "b"] * 5
    assert [len(own) for own in times] == [3, 3]
    assert ratios([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]
    ticks = iter(range(100))
    assert interleave([lambda: None], rounds=2, warmup=1, clock=lambda: float(next(ticks))) == [[1000.0, 1000.0]]
    assert quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 4.0)


@pytest.mark.slow  # processes of their own
def test_memory_of_the_static_twin_does_not_hold_the_experts() -> None:
    peaks = [peak_memory(replace(SMALL, model_args={"experts": experts}), "static") for experts in (1, 32)]
    if None in peaks:
        pytest.skip("this system does not tell a process's peak memory")
    assert peaks[1] == pytest.approx(peaks[0], rel=0.15)


@pytest.mark.slow  # a process of its own
def test_memory_of_a_step_holds_at_least_the_weights() -> None:
    settings = replace(SMALL, mode="train", batch=2)
    peak = peak_memory(settings, "ours")
    if peak is None:
        pytest.skip("this system does not tell a process's peak memory")
    ours = contenders(settings, make_input(settings), ("ours",))[0]
    weights = sum(p.numel() * p.element_size() for p in ours.network.parameters())
    make_step(ours, settings, make_input(settings))
    assert peak >= 2 * weights  # weights and gradients


@pytest.mark.slow
def test_table_12_has_the_papers_rows() -> None:
    rows = table12(rounds=1, size=32)
    assert [row.width for row in rows] == ["1", "0.75", "0.5", "0.35"]
    assert [(row.paper_static_ms, row.paper_dynamic_ms) for row in rows] == list(PUBLISHED.values())
    assert all(row.ratio > 0 for row in rows)


def test_mistakes_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    for words, text in [
        (["dy_mobilenet_035"], "Did you mean"),
        (["dy_mobilenetv2_035", "--mode", "trian"], "Did you mean 'train'?"),
        (["dy_mobilenetv2_035", "--clock", "proces"], "Did you mean 'processor'?"),
        (["dy_mobilenetv2_035", "--dtype", "bfloat"], "Did you mean"),
        ([], "Expected the name of a network"),
    ]:
        assert main(["bench", *words]) == 2
        assert text in capsys.readouterr().err
