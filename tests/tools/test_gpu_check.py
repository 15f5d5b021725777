"""`make gpu-check` without a GPU: it says so; and its logic on the CPU, with tiny cases and Triton's interpreter."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

TOOL = Path(__file__).resolve().parents[2] / "tools" / "gpu_check.py"


@pytest.fixture(scope="module")
def tool() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_check", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tool: types.ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == "gpu-check: torch finds no GPU here, so there is nothing to check.\n"
    assert not (tmp_path / "out").exists()


def test_its_parts_need_less_than_nine_minutes(tool: types.ModuleType) -> None:
    assert sum(tool.SECONDS.values()) <= 520
    assert set(tool.SECONDS) == set(tool.PARTS)


def test_a_part_that_is_stopped_leaves_what_it_found(
    tool: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(device: str, quick: bool):  # type: ignore[no-untyped-def]
        yield tool.checked("right", lambda: None)
        yield tool.checked("wrong", lambda: {}["key"])
        raise KeyboardInterrupt

    monkeypatch.setitem(tool.PARTS, "laws", found)
    with pytest.raises(KeyboardInterrupt):
        tool.run_part("laws", "cpu", True, tmp_path)
    first, second = tool.read(tmp_path / "laws.json")
    assert (first["name"], first["error"]) == ("right", None)
    assert second["error"].startswith("KeyError")
    assert tool.summary([first, second]) == "2 results, 1 WRONG"
    assert tool.read(tmp_path / "nothing.json") == []


def test_a_wrong_kernel_breaks_the_laws(tool: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The laws run over any function: the reference keeps them, and one that adds up the examples breaks one."""
    from dynaconv.ops import mix
    from kernels.cuda.triton_cases import QUICK

    def by_loop(case, made):  # type: ignore[no-untyped-def]
        return mix(made["x"], made["bank"], made["routing"], made.get("bias"), geometry=case.geometry, strategy="loop")

    monkeypatch.setattr(tool, "_mixed", by_loop)
    for law in tool.LAWS:
        law(QUICK[0], "cpu")
    monkeypatch.setattr(tool, "_mixed", lambda case, made: by_loop(case, made) + made["x"].sum())
    broken = [tool.checked(law.__name__, lambda law=law: law(QUICK[0], "cpu"))["error"] for law in tool.LAWS]
    assert any(broken)
    assert broken[0] is not None, "one example's values reach another"


def test_layers_and_networks_are_timed_beside_static(tool: types.ModuleType) -> None:
    (layer, *_) = list(tool.layers("cpu", True))
    assert layer["error"] is None
    assert set(layer["milliseconds"]) == {"static", "plan's choice", "grouped"}
    assert layer["ratio_to_static"]["static"] == 1.0


@pytest.mark.slow  # four processes and a network
def test_the_whole_on_a_cpu(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, str(TOOL), "--device", "cpu", "--quick", "--out", str(out)],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    report = json.loads((out / "gpu-check.json").read_text())
    assert list(report["parts"]) == ["laws", "kernels", "layers", "networks"], done.stderr
    assert "written" in done.stdout
    (case,) = json.loads((out / "performance.json").read_text())["cases"].values()
    assert {"settings", "ratio_to_static", "milliseconds", "environment"} <= set(case)
