"""``dynaconv tables``."""

from __future__ import annotations

import csv
import io
import json
import sys

import pytest

from dynaconv.cli import main
from dynaconv.papers import tables as module

KEYS = ["paper", "table", "row", "quantity", "published", "ours", "rule", "note"]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two networks instead of all; the whole is counted in tests/papers."""
    rows = [row for row in module.published_figures() if "ResNet-10" in row["row"] or "1.0x baseline" in row["row"]]
    monkeypatch.setattr(module, "published_figures", lambda: rows)


@pytest.mark.usefixtures("few")
def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tables", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 5
    assert all(list(row) == KEYS for row in rows)
    ssd, resnet = rows[0], rows[1]
    assert (ssd["ours"], ssd["published"]) == (pytest.approx(1237.2205), 1230)
    assert resnet["row"] == "ResNet-10"
    assert resnet["ours"] == pytest.approx(5.4188)


@pytest.mark.usefixtures("few")
def test_csv_and_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tables", "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert list(rows[0]) == [*KEYS[:6], "difference", *KEYS[6:]]
    assert [row["difference"] for row in rows] == ["0.59", "4.21", "-0.09", "5.84", "-0.09"]
    assert main(["tables"]) == 0
    out = capsys.readouterr().out
    assert "DynamicConv Table 8" in out
    assert "+5.84 %" in out
    assert "5 published figures; 5 counted, 3 of them within 1 %" in out


def test_bad_format(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tables", "--format", "jsn"]) == 2
    assert "Did you mean 'json'" in capsys.readouterr().err


@pytest.mark.usefixtures("few")
def test_a_bar_on_a_terminal_and_none_in_a_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["tables", "--format", "csv"]) == 0
    piped = capsys.readouterr()
    assert piped.err == ""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["tables", "--format", "csv"]) == 0
    terminal = capsys.readouterr()
    assert "Counting" in terminal.err
    assert terminal.out == piped.out
