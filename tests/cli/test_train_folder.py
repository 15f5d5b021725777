"""A run that was not told where goes where no other network's run goes."""

from __future__ import annotations

from typing import Any

import pytest

from dynaconv.cli.train import default_folder
from dynaconv.recipes import list_recipes, load
from dynaconv.train.recipe import resolve_recipe

DIGITS = {"data": "digits"}


@pytest.mark.parametrize(
    ("network", "folder"),
    [
        ({"name": "resnet18"}, "resnet18-digits-seed0"),
        ({"name": "resnet18", "method": "dynamic", "experts": 2}, "resnet18-dynamic-experts2-digits-seed0"),
        ({"name": "dy_resnet10", "args": {"static": True}}, "dy_resnet10-static-digits-seed0"),
        ({"name": "dy_resnet10", "experts": 8}, "dy_resnet10-experts8-digits-seed0"),
        ({"name": "dy_resnet10", "args": {"convs": "C1 C3"}}, "dy_resnet10-convsC1_C3-digits-seed0"),
        ({"name": "test_resnet", "args": {"channels": [8, 16]}}, "test_resnet-channels8_16-digits-seed0"),
        ({"name": "resnet18", "dropout": 0.1}, "resnet18-dropout0.1-digits-seed0"),
    ],
)
def test_network(network: dict[str, Any], folder: str) -> None:
    assert default_folder(resolve_recipe({}, network, {}, DIGITS)).as_posix() == f"runs/{folder}"


@pytest.mark.parametrize(
    ("called", "network", "folder"),
    [
        ("dy_mobilenetv2_050", {}, "dy_mobilenetv2_050-digits-seed0"),
        ("dy_mobilenetv2_050_static", {}, "dy_mobilenetv2_050_static-digits-seed0"),
        ("dy_mobilenetv2_050", {"experts": 2}, "dy_mobilenetv2_050-experts2-digits-seed0"),
        ("dy_mobilenetv2_050", {"args": {"static": True}}, "dy_mobilenetv2_050-static-digits-seed0"),
    ],
)
def test_recipe(called: str, network: dict[str, Any], folder: str) -> None:
    base = load(called)
    assert (
        default_folder(resolve_recipe(base, network, {}, DIGITS), called, base["model"]).as_posix() == f"runs/{folder}"
    )


def test_recipe_files() -> None:
    base = {"model": {"name": "dy_resnet10", "args": {"static": True}}}
    recipe = resolve_recipe(base, {}, {}, DIGITS)
    assert default_folder(recipe, "some/mine.json", base["model"]).name == "mine-digits-seed0"
    assert default_folder(recipe, "some/run.json", base["model"]).name == "dy_resnet10-static-digits-seed0"


def test_no_two_recipes_share_a_folder() -> None:
    bases = {name: load(name) for name in list_recipes()}
    folders = {
        default_folder(resolve_recipe(base, {}, {}, DIGITS), name, base["model"]) for name, base in bases.items()
    }
    assert len(folders) == len(bases)
