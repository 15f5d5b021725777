"""The tool that times the kernels of a wheel: its forms are what they are called, its interval is that of the books."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from dynaconv.kernels.cpu import build, why_not

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(REPOSITORY / "tools"))
    return importlib.import_module("wheel_speed")


@pytest.mark.parametrize(("count", "order"), [(10, 2), (20, 6), (41, 14)])
def test_interval_of_a_median(tool: ModuleType, count: int, order: int) -> None:
    """Of 10, 20, 41 values: from the 2nd, 6th, 14th smallest to the same of the largest (tables of the sign test)."""
    values = [float(value) for value in range(count, 0, -1)]
    assert tool.interval_of_median(values) == (order, count + 1 - order)


@pytest.mark.skipif(why_not() is not None, reason="there is no compiler here")
def test_forms(tool: ModuleType) -> None:
    with tool.kernels_of("compiled"):
        assert build._flags == ("-march=native",)
        assert why_not() is None
    with tool.kernels_of("neither"):
        assert why_not() == "switched off for a measurement"
    assert build._flags is None
    assert why_not() is None
