"""The report: rows that sum to the totals, in every format."""

from __future__ import annotations

import csv
import io
import json

import pytest
import torch
from torch import nn

from counting.networks import PlainDynamic, PlainRouter, Residual
from dynaconv.counting import CostReport, cost
from dynaconv.counting.table import short


class Unused(nn.Module):
    """Something that runs and something that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.auxiliary = nn.Linear(7, 7)
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), PlainDynamic(PlainRouter(8, 4), 8, 8, 3, 3), Residual(8)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


@pytest.fixture(params=["madds", "tf", "dy"])
def report(request: pytest.FixtureRequest) -> CostReport:
    return cost(Unused(), (3, 7, 7), rule=request.param)


def test_rows_sum_to_the_totals(report: CostReport) -> None:
    for column in ("kernel", "mixing", "routing", "elementwise", "total"):
        assert sum(getattr(row, column) for row in report.layers) == getattr(report, column)
    assert sum(row.parameters for row in report.layers) == report.parameters.total
    assert report.parameters.total == sum(p.numel() for p in Unused().parameters())


def test_rows_stand_in_the_order_of_running_and_the_unused_last(report: CostReport) -> None:
    names = [row.name for row in report.layers if row.name != "body.3"]  # the residual's own addition, under "tf" only
    assert names == ["body.0", "body.1", "body.2", "body.3.conv", "auxiliary"]
    assert (report.layers[-1].calls, report.layers[-1].output_shape) == (0, None)


def test_dictionary_and_json_agree(report: CostReport) -> None:
    loaded = json.loads(report.to_json())
    assert loaded == report.to_dict()
    assert loaded["madds"]["total"] == report.total
    assert loaded["rule"] == report.rule
    assert loaded["model"] == "Unused"
    assert loaded["input_shapes"] == [[1, 3, 7, 7]]
    assert loaded["peak_activation_bytes"] == report.peak_activation_bytes
    assert [row["total"] for row in loaded["layers"]] == [row.total for row in report.layers]


def test_whole_numbers_are_written_whole() -> None:
    numbers = cost(Unused(), (3, 7, 7)).to_dict()["madds"].values()
    assert all(isinstance(number, int) for number in numbers)


def test_csv_has_one_line_per_layer(report: CostReport) -> None:
    rows = list(csv.DictReader(io.StringIO(report.to_csv())))
    assert [row["name"] for row in rows] == [row.name for row in report.layers]
    assert sum(float(row["total"]) for row in rows) == report.total
    assert rows[0]["output_shape"] == "1x8x7x7"
    assert rows[2]["experts"] == "4"
    assert (rows[-1]["output_shape"], rows[-1]["experts"]) == ("", "")


def test_table(report: CostReport) -> None:
    lines = str(report).splitlines()
    assert lines[0].split()[:5] == ["layer", "kind", "output", "params", "kernel"]
    assert ("elementwise" in lines[0]) == (report.rule == "tf")
    assert {"mixing", "routing"} <= set(lines[0].split())
    dynamic = next(line for line in lines if line.startswith("body.2"))
    assert "PlainDynamic K=4" in dynamic
    assert "1x8x7x7" in dynamic
    assert "(2 layers without cost)" in str(report)
    assert f"({report.total:,.10g}) by rule '{report.rule}'" in str(report)
    numbers = [line for line in lines[: lines.index("")] if not line.startswith("-")]
    assert len({len(line) for line in numbers if not line.startswith("(")}) == 1  # aligned to the right edge


def test_table_of_all_layers() -> None:
    assert "auxiliary" not in cost(Unused(), (3, 7, 7)).table()
    full = cost(Unused(), (3, 7, 7)).table(all_layers=True)
    assert "auxiliary    Linear            not run" in full
    assert "without cost" not in full


def test_static_networks_have_no_dynamic_columns() -> None:
    text = str(cost(nn.Linear(4, 3), (4,)))
    assert "mixing" not in text
    assert "routing" not in text
    assert "(model)" in text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (640, "640"),
        (640.5, "640.5"),
        (1000, "1.00k"),
        (12_345, "12.35k"),
        (4_089_184_256, "4089.18M"),
        (2e10, "20.00G"),
    ],
)
def test_short(number: float, text: str) -> None:
    assert short(number) == text
