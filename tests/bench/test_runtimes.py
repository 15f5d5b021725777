"""``bench --runtime``: the exported network beside its static twin; nothing is timed before outputs are equal."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import dynaconv
from dynaconv.bench import BenchSettings, runtimes
from dynaconv.errors import RunError


def network(settings: Any, *, static: bool) -> nn.Module:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 4, 3) if static else dynaconv.DynamicConv2d(3, 4, 3)
    return nn.Sequential(layer, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def settings(**more: Any) -> BenchSettings:
    return BenchSettings(**{"model": "small", "size": 8, "rounds": 2, "warmup": 0, **more})


@pytest.mark.parametrize(("runtime", "bank_dtype"), [("onnx", None), ("openvino", "int8")])
def test_times_ours_and_the_static_twin_in_one_runtime(
    runtime: str, bank_dtype: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "build", network)
    result = runtimes.bench_runtime(settings(bank_dtype=bank_dtype), runtime)
    assert result.bank_dtype == bank_dtype
    first, *others = result.milliseconds
    assert first == f"static, {runtime}"
    assert list(result.ratio_to_static) == others
    assert f"ours, {runtime}, any batch" in others
    assert max(result.errors.values()) < 1e-4
    assert all("choose the form 'single'" in reason for reason in result.left.values())
    assert all(low <= high for low, high in result.quartiles.values())


def test_outputs_that_differ_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "build", network)
    monkeypatch.setattr(runtimes, "freeze", lambda model, **_: network(None, static=True))
    with pytest.raises(RunError, match="ours, frozen in PyTorch computes something else"):
        runtimes.bench_runtime(settings(), "onnx")


@pytest.mark.parametrize(
    ("runtime", "more", "message"),
    [
        ("tensorrt", {}, "runtime is 'tensorrt'"),
        ("onnx", {"mode": "train"}, "is for inference in float32 on the processor"),
        ("onnx", {"dtype": "bfloat16"}, "is for inference in float32 on the processor"),
    ],
)
def test_settings_that_do_not_fit(runtime: str, more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        runtimes.bench_runtime(settings(**more), runtime)


@pytest.mark.slow
def test_aoti_beside_onnx_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "build", network)
    result = runtimes.bench_runtime(settings(), "aoti")
    assert list(result.milliseconds) == ["static, onnx", "static, aoti", "ours, aoti", "ours, frozen in PyTorch"]
