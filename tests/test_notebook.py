"""What notebooks show: whole tables, every text escaped, no control characters in progress."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest
import torch
from torch import nn

import dynaconv
from dynaconv.conversion.report import DynamizeReport, LayerReport
from dynaconv.inference import FreezeReport
from dynaconv.notebook import html_table
from dynaconv.ops.plan import Plan


class Table(HTMLParser):
    """The cells of the table, row by row, as a browser reads them; raises for tags that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


EVIL = "<script>alert('a & b')</script>"


def shown(thing: Any) -> str:
    text: str = thing._repr_html_()
    assert "<script" not in text
    return text


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 16, 2))


def test_text_is_escaped_and_numbers_are_set_to_the_right() -> None:
    text = html_table(("name", EVIL), [(EVIL, "1")], right=(1,), notes=[EVIL], total=True)
    assert "<script" not in text
    assert Table(text).rows == [["name", EVIL], [EVIL, "1"]]
    assert 'text-align:right">1<' in text


def test_costs() -> None:
    report = dynaconv.cost(dynaconv.dynamize(network(), input_size=(3, 8, 8)), (3, 8, 8))
    rows = Table(shown(report)).rows
    assert rows[0][:4] == ["layer", "kind", "output", "params"]
    assert rows[-1][0] == "total"
    assert [row[0] for row in rows[1:3]] == ["0", "1"]
    assert "activations" in shown(report)


def test_conversion() -> None:
    twin = dynaconv.dynamize(network(), input_size=(3, 8, 8))
    assert [row[:3] for row in Table(shown(twin.dynamize_report)).rows[1:3]] == [
        ["0", "Conv2d", "left"],
        ["1", "Conv2d", "dynamic"],
    ]
    report = DynamizeReport((LayerReport(name=EVIL, kind="Conv2d", replaced=False, reason=EVIL),))
    assert Table(shown(report)).rows[1] == [EVIL, "Conv2d", "left", EVIL]


def test_freezing() -> None:
    frozen = dynaconv.freeze(dynaconv.dynamize(network(), input_size=(3, 8, 8)).eval(), input_size=(3, 8, 8))
    assert Table(shown(frozen.freeze_report)).rows[1:] == [["1", "frozen", "took 2"]]
    report = FreezeReport(layers=(), norms={"n": "c"}, error=0.0, top1_agreement=None, left={EVIL: EVIL})
    assert Table(shown(report)).rows[1:] == [["c", "ordinary", "took n"], [EVIL, "left", EVIL]]


def test_plans() -> None:
    plan = dynaconv.DynamicConv2d(4, 4, 3).plan(torch.randn(2, 4, 8, 8))
    rows = Table(shown(plan)).rows
    assert rows[1] == [plan.strategy, "runs", plan.why]
    assert len(rows) == 2 + len(plan.others)
    assert Table(shown(Plan(EVIL, EVIL, {EVIL: EVIL}))).rows[2] == [EVIL, "not", EVIL]


def test_progress_in_a_kernel_has_no_control_characters(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As in Jupyter: standard output is no terminal, and IPython says that it is a kernel."""
    from dynaconv.train import TrainSettings, fit
    from dynaconv.train.progress import Bar
    from train.tiny import digits, tiny

    monkeypatch.setenv("JPY_PARENT_PID", "1")
    bar = Bar()
    quick = TrainSettings(epochs=1, device="cpu", curves=False, tensorboard=False)
    fit(tiny(), digits(train=64, evaluation=32), quick, progress=bar)
    found = capfd.readouterr()
    text = found.out + found.err
    assert "\x1b" not in text
    assert "\r" not in text
