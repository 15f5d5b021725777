"""The paper's dynamic perceptron computes XOR (Chen et al. 2020, A.3), by the paper's weights and by learned ones."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from dynaconv import DynamicLinear

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLE = REPOSITORY / "examples" / "xor.py"


@pytest.fixture(scope="module")
def xor() -> ModuleType:
    spec = importlib.util.spec_from_file_location("xor_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_papers_weights_are_xor_exactly(xor: ModuleType) -> None:
    layer = xor.paper_layer()
    assert layer(xor.POINTS).tolist() == [[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]
    assert layer(torch.tensor([0.0, 1.0])).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_gradient_descent_finds_xor_with_one_layer(xor: ModuleType, seed: int) -> None:
    layer = xor.learned_layer(seed)
    assert isinstance(layer, DynamicLinear)
    assert (layer(xor.POINTS)[:, 0] - xor.XOR).abs().max() < 0.01


def test_the_example_runs_and_prints_both_truth_tables() -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    ran = subprocess.run([sys.executable, str(EXAMPLE)], capture_output=True, text=True, env=environment, check=True)
    rows = [line.split("|") for line in ran.stdout.splitlines() if line.count("|") == 3 and "x1" not in line]
    assert len(rows) == 8
    for point, _, y, wanted in rows:
        first, second = map(int, point.split())
        assert int(wanted) == first ^ second
        assert abs(float(y) - int(wanted)) < 0.01
