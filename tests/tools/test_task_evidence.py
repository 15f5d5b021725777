"""docs/detection-keypoints.md says what its raw figures say, and the settings shown are those of the recipes."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dynaconv.analysis.settings import static_name
from dynaconv.recipes import resolve

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "detection-keypoints.md"
RECIPES = {
    "cells": "ssd300_condconv_mobilenetv1_050_small",
    "mice": "keypoints_mouse",
    "mice-annealed": "keypoints_mouse",
}
SAME_DATA = {"mice": "mice-annealed"}  # run before a comparison noted the guess
CHANGED = {"mice-annealed": {"temperature_end": 1.0, "temperature_epochs": 10}}  # by --set
STUDENT_T = {2: 12.706205, 3: 4.302653}  # of 0.975, by the number of seeds
FAR = 5  # times what is guessed without looking


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(REPOSITORY / "tools"))
    return importlib.import_module("task_evidence")


@pytest.fixture(params=RECIPES)
def named(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return request.param, json.loads((REPOSITORY / "docs" / "evidence" / f"{request.param}.json").read_text())


def test_the_page_has_the_table_of_the_runs(tool: ModuleType, named: tuple[str, dict[str, Any]]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    for line in tool.page_table(named[1]):
        assert line in text


def test_the_table_by_hand(tool: ModuleType, named: tuple[str, dict[str, Any]]) -> None:
    """Mean, deviation and interval of the runs, from the formulas."""
    static, dynamic = (
        [run["ap"] for run in named[1]["runs"] if (run["method"] == "static") == plain] for plain in (True, False)
    )
    differences = [ours - theirs for ours, theirs in zip(dynamic, static, strict=True)]
    seeds = len(named[1]["compare"]["seeds"])
    assert len(differences) == seeds
    centre = sum(differences) / seeds
    row = tool.page_table(named[1])[-1]
    if seeds == 1:
        assert f"| {centre:+.1f} [one seed] |" in row
        return
    half = STUDENT_T[seeds] * _deviation(differences) / math.sqrt(seeds)
    assert f"| {sum(dynamic) / seeds:.1f} ± {_deviation(dynamic):.1f} |" in row
    assert f"| {centre:+.1f} [{centre - half:+.1f}, {centre + half:+.1f}] |" in row


def test_every_seed_stands_on_the_page(named: tuple[str, dict[str, Any]]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    for seed in named[1]["compare"]["seeds"]:
        runs = [run for run in named[1]["runs"] if run["seed"] == seed]
        assert f"| {seed} | " + " | ".join(f"{run['ap']:.1f}" for run in runs) + " |" in text


def test_networks_learned(named: tuple[str, dict[str, Any]]) -> None:
    """The mean over the seeds is far above what is guessed without looking, and above the untrained networks."""
    name, evidence = named
    noted = json.loads((REPOSITORY / "docs" / "evidence" / f"{SAME_DATA.get(name, name)}.json").read_text())["compare"]
    assert noted["settings"]["data"] == evidence["compare"]["settings"]["data"]
    guessed = 100 * noted["baseline"]["ap"]
    assert f"{guessed:.1f} %" in PAGE.read_text(encoding="utf-8")
    for method in {run["method"] for run in evidence["runs"]}:
        ap = [run["ap"] for run in evidence["runs"] if run["method"] == method]
        assert sum(ap) / len(ap) > FAR * guessed
    assert max(one["ap"] for one in evidence["untrained"]) < 0.01


def test_the_recipe_is_the_one_that_was_run(named: tuple[str, dict[str, Any]]) -> None:
    name, evidence = named
    ran, recipe = evidence["compare"]["settings"], resolve(RECIPES[name])
    assert ran["backbone"] == static_name(recipe.model.name)
    assert (ran["model_args"], ran["batch_size"]) == (recipe.model.args, recipe.batch_size)
    settings = recipe.settings.model_dump(mode="json", exclude={"seed", "device"})
    settings |= CHANGED.get(name, {})
    shared = {key: value for key, value in settings.items() if key in ran["training"] and value is not None}
    assert {key: ran["training"][key] for key in shared} == shared
    assert recipe.claim is not None
    seeds = len(evidence["compare"]["seeds"])
    means = [
        sum(run["ap"] for run in evidence["runs"] if run["method"] == row["method"]) / seeds
        for row in evidence["compare"]["rows"]
    ]
    assert [f"{mean:.1f} %" in recipe.claim.notes for mean in means] == [True, True]


def _deviation(values: list[float]) -> float:
    centre = sum(values) / len(values)
    return math.sqrt(sum((value - centre) ** 2 for value in values) / (len(values) - 1))
