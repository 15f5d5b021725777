"""The pages about recipes say what the recipes say, and their commands are understood."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from dynaconv.cli.train import train
from dynaconv.recipes import list_recipes, resolve

DOCS = Path(__file__).resolve().parents[2] / "docs"
GUIDES = ("guide-imagenet.md", "guide-many-machines.md", "recipes.md")


def commands() -> list[str]:
    """The options of every ``dynaconv train`` in the guides' examples, continued lines joined."""
    found = set()
    for guide in GUIDES:
        text = (DOCS / guide).read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"\bdynaconv train +(--.*)", text):
            if "--recipe mine.json" in line:  # the file that the page tells to write
                continue
            found.add(" ".join(re.split(r"['`>]", line)[0].split()))
    return sorted(found)


def percent(value: float | None) -> str:
    return "not published" if value is None else f"{value:.1f} %"


def test_the_table_of_recipes_is_complete_and_right() -> None:
    text = (DOCS / "recipes.md").read_text(encoding="utf-8")
    text = text.partition("\n## Detection")[0]
    rows = {cells[1].strip("` "): [cell.strip() for cell in cells[2:7]] for cells in _tables(text)}
    names = [name for name in list_recipes("classification") if not name.endswith("_static")]
    for name in names:
        claim = resolve(name).claim
        assert claim is not None
        twin = "yes" if f"{name}_static" in list_recipes() else "no"
        expected = [f"{claim.paper}, {claim.row}", percent(claim.top1), percent(claim.static_top1), twin, "no"]
        assert rows[name] == expected
    assert set(rows) - {"recipe", "---"} == set(names)


@pytest.mark.parametrize("task", ["detection", "keypoints"])
def test_the_tables_of_other_tasks_are_complete_and_right(task: str) -> None:
    text = (DOCS / "recipes.md").read_text(encoding="utf-8")
    text = text.partition(f"\n## {task.capitalize()}")[2].partition("\n## ")[0]
    rows = {cells[1].strip("` "): [cell.strip() for cell in cells[2:5]] for cells in _tables(text)}
    for name in list_recipes(task):
        claim = resolve(name).claim
        assert claim is not None
        assert rows[name] == [f"{claim.paper}, {claim.row}", percent(claim.published.get("ap")), claim.reproduced], name
    assert set(rows) - {"recipe", "---"} == set(list_recipes(task))


def test_figures_of_the_imagenet_guide_are_the_recipes() -> None:
    text = (DOCS / "guide-imagenet.md").read_text(encoding="utf-8")
    rows = [cells for cells in _tables(text) if cells[1].strip("` ") in list_recipes()]
    assert len(rows) >= 5
    for cells in rows:
        claim = resolve(cells[1].strip("` ")).claim
        assert claim is not None
        assert [cell.strip() for cell in cells[2:4]] == [percent(claim.top1), percent(claim.static_top1)]


@pytest.mark.parametrize("options", commands())
def test_commands_of_the_guides_are_understood(options: str) -> None:
    app = Typer()
    app.command()(train)
    result = CliRunner().invoke(app, [*shlex.split(options), "--show"], catch_exceptions=False)
    assert result.exit_code == 0, result.output


def _tables(text: str) -> list[list[str]]:
    return [line.split("|") for line in text.splitlines() if line.startswith("|")]
