"""``dynaconv list``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dynaconv.cli import main
from dynaconv.cli.tables import reproduced


def test_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "dy_resnet1?"]) == 0
    header, _, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["name", "params", "MAdds"]
    assert [row.split()[0] for row in rows] == ["dy_resnet10", "dy_resnet18"]
    assert rows[1].split()[1:6] == ["44.93M", "1858.30M", "72.7", "%", "no"]
    assert "Chen 2020, Table 8, DY-ResNet-18" in rows[1]


def test_networks_of_other_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "ssd300_condconv*050"]) == 0
    [row] = capsys.readouterr().out.splitlines()[2:]
    assert row.split()[:5] == ["ssd300_condconv_mobilenetv1_050", "11.40M", "362.80M", "-", "no"]
    assert "published COCO AP 18.0 %" in row


def test_the_status_is_the_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    from dynaconv.recipes.rows import dy_resnet10

    assert reproduced("condconv_mobilenetv1_075") == "-", "it has no recipe"
    monkeypatch.setitem(dy_resnet10.RECIPES[""]["claim"], "reproduced", "67.5 %")
    assert (reproduced("dy_resnet10"), reproduced("dy_resnet18")) == ("67.5 %", "no")


@pytest.mark.slow
def test_all_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    from dynaconv.models import ZOO
    from dynaconv.models.builder import OTHERS

    assert main(["list"]) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split()[0] for row in rows] == [*ZOO, *OTHERS]


def test_nothing_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "dy_resnet"]) == 2
    assert "Did you mean 'dy_resnet18'" in capsys.readouterr().err


@pytest.mark.parametrize("page", ["paper-condconv.md", "paper-dynamic-convolution.md"])
def test_the_papers_pages_say_what_was_reproduced(page: str) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / page).read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|.*\| (\S+) \|$", text, flags=re.MULTILINE)
    assert len(rows) >= 8
    assert rows == [(name, reproduced(name)) for name, _ in rows]
