"""The published figures beside ours."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from dynaconv.cli.tables import as_markdown
from dynaconv.counting import CostReport
from dynaconv.papers import tables as module
from dynaconv.papers.networks import TableNetwork, network_of_row
from dynaconv.papers.tables import UNEXPLAINED, Row, cause_of, count_tables, published_figures

DOCS = Path(__file__).resolve().parents[2] / "docs"

# What the cost study derives where no reading of the paper reproduces the printed figure.
HONEST = {
    ("Table 2", "CondConv x1.0 K=8", "params_m"): 27.81,
    ("Table 8", "MobileNetV3-Small", "params_m"): 3.11,
    ("Table 8", "DY-MobileNetV2 x0.35", "params_m"): 2.69,
    ("Table 8", "DY-MobileNetV2 x0.5", "params_m"): 3.94,
    ("Table 2", "DY x0.5 K=4", "params_m"): 3.94,
    ("Table 8", "ResNet-18", "params_m"): 11.69,
    ("Table 8", "DY-ResNet-18", "params_m"): 44.93,
    ("Table 8", "ResNet-10", "params_m"): 5.42,
    ("Table 8", "DY-ResNet-10", "params_m"): 19.69,
    ("Table 10", "backbone DY-MobileNetV3-Small", "params_m"): 2.759,
    ("App. A", "CondConv-MnasNet-A1", "madds_m"): 325.05,
}


def test_every_published_row_stands_there_unchanged(shared: Path) -> None:
    with (shared / "cost" / "published.csv").open(encoding="utf-8", newline="") as file:
        assert published_figures() == list(csv.DictReader(file))
    assert len(published_figures()) == 141


def test_every_row_has_its_network() -> None:
    rows = {(row["paper"], row["table"], row["row"]): None for row in published_figures()}
    assert None not in {network_of_row(*row) for row in rows}
    assert len({network_of_row(*row) for row in rows}) == 64 + 6 + 7
    assert network_of_row("DynamicConv", "Table 1", "MobileNetV2 x0.35 K=6") == TableNetwork(
        "dy_mobilenetv2_035", (("experts", 6),)
    )
    assert network_of_row("DynamicConv", "Table 10", "backbone DY-ResNet-18") == TableNetwork(
        "dy_resnet18", (), (3, 256, 192), part="backbone"
    )
    assert network_of_row("DynamicConv", "Table 10", "type B DY bneck head MobileNetV2 (Bout=1280)") == TableNetwork(
        "keypoints_b_dy_mobilenetv2_100", (), (1280, 8, 6), part="head"
    )
    assert network_of_row("CondConv", "Table 2", "SSD300-MobileNetV1 0.75x CondConv-8") == TableNetwork(
        "ssd300_condconv_mobilenetv1_075", (), (3, 300, 300)
    )
    assert network_of_row("CondConv", "Table 9", "another network") is None


def counted(monkeypatch: pytest.MonkeyPatch, words: str) -> dict[str, Row]:
    """The rows in whose text ``words`` is found, counted from the networks."""
    chosen = [
        row for row in published_figures() if re.search(words, f"{row['table']} | {row['row']} | {row['quantity']}")
    ]
    monkeypatch.setattr(module, "published_figures", lambda: chosen)
    return {f"{row.row} {row.quantity}": row for row in count_tables()}


def test_a_network_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[TableNetwork] = []
    count = module.count

    def noting(network: TableNetwork) -> CostReport:
        calls.append(network)
        return count(network)

    monkeypatch.setattr(module, "count", noting)
    rows = counted(monkeypatch, r"Table (8|10) \| (backbone )?(DY-)?ResNet-1[08] \| params|SSD.* 0.5x")
    assert len(calls) == len(set(calls)) == 6 + 2
    assert rows["DY-ResNet-10 params_m"].ours == pytest.approx(19.6856)
    assert "18.77 in units of 2^20" in rows["DY-ResNet-10 params_m"].note
    assert rows["backbone DY-ResNet-18 params_m"].ours == pytest.approx(44.42)
    assert rows["SSD300-MobileNetV1 0.5x baseline madds_m"].ours == pytest.approx(352.2417)


def test_heads_are_counted_at_their_own_input(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = counted(monkeypatch, r"(type A .*ResNet|type B .*Small)")
    ours = {name: round(row.ours, 2) for name, row in rows.items() if row.ours is not None}
    assert ours == {
        "type A dconv head on ResNet-18 (Cin=512) params_m": 4.2,
        "type A dconv head on ResNet-18 (Cin=512) madds_m": 1120.67,
        "type B bneck head MobileNetV3-Small (Bout=576) params_m": 1.01,
        "type B bneck head MobileNetV3-Small (Bout=576) madds_m": 689.66,
        "type B DY bneck head MobileNetV3-Small (Bout=576) params_m": 4.87,
        "type B DY bneck head MobileNetV3-Small (Bout=576) madds_m": 699.22,
    }
    assert "impossible as printed" in rows["type A dconv head on ResNet-18 (Cin=512) madds_m"].note
    assert "unexplained" in rows["type B bneck head MobileNetV3-Small (Bout=576) madds_m"].note


def test_ours_is_counted_and_never_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another input gives another count."""
    monkeypatch.setattr(module, "network_of_row", lambda *words: TableNetwork("dy_resnet10", (), (3, 112, 112)))
    (row,) = counted(monkeypatch, r"Table 8 \| DY-ResNet-10 \| madds").values()
    assert row.rule == "dy"
    assert 225 < row.ours < 260
    assert row.difference == pytest.approx(100 * (row.ours / 910 - 1))


@pytest.mark.parametrize(
    ("words", "published", "ours", "cause"),
    [
        (("DynamicConv", "Table 8", "MobileNetV2 x0.75", "params_m"), "2.6", 2.636, "rounded"),
        (("DynamicConv", "Table 10", "backbone DY-MobileNetV2 x1.0", "params_m"), "9.8", 9.865, "truncated"),
        (("DynamicConv", "Table 8", "DY-MobileNetV2 x0.35", "params_m"), "2.8", 2.685, UNEXPLAINED),
        (("DynamicConv", "Table 1", "MobileNetV2 x1.0 K=4", "madds_m"), "312.9", 316.8, "literally"),
        (("CondConv", "App. A", "CondConv-MnasNet-A1", "madds_m"), "329", 325.0, "contradicts itself"),
    ],
)
def test_causes(words: tuple[str, ...], published: str, ours: float, cause: str) -> None:
    assert cause in cause_of(words, published, ours)


@pytest.fixture(scope="module")
def everything() -> list[Row]:
    return count_tables()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_pages_in_docs_have_these_figures(everything: list[Row]) -> None:
    for paper, page in (("CondConv", "paper-condconv.md"), ("DynamicConv", "paper-dynamic-convolution.md")):
        text = (DOCS / page).read_text(encoding="utf-8")
        assert "\n".join(as_markdown([row for row in everything if row.paper == paper])) in text


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_all_tables(everything: list[Row]) -> None:
    rows = everything
    assert len(rows) == 141
    assert [(row.paper, row.table, row.row, row.quantity) for row in rows] == [
        (row["paper"], row["table"], row["row"], row["quantity"]) for row in published_figures()
    ]
    assert all(row.ours is not None for row in rows)
    # The printed cost of the keypoint heads cannot be had; the notes say so, and how far it is known why.
    heads = [row for row in rows if " head " in row.row]
    assert len(heads) == 14
    assert all(re.search("impossible|unexplained|rounded", row.note) or abs(row.difference) < 0.5 for row in heads)
    here = [row for row in rows if row not in heads]
    # Under the dynamic-convolution paper's literal formula its own dynamic networks count 0.5 to 2.5 % more.
    literal = [row for row in here if row.rule == "dy" and ("DY" in row.row or "K=" in row.row)]
    assert all(-0.2 < row.difference < 2.5 for row in literal)
    others = [row for row in here if row not in literal]
    for row in others:
        honest = HONEST.get((row.table, row.row, row.quantity), row.published)
        rounding = 0.05 if row.quantity == "params_m" and row.published < 10 else 0.0
        near = abs(row.ours - honest) <= max(0.01 * honest, rounding) or "2^20" in row.note
        assert near or "truncated" in row.note, row
    for row in here:
        assert abs(row.difference) <= 0.5 or len(row.note.split("; ")[-1]) > 10
    condconv = [row for row in others if row.paper == "CondConv"]
    assert sum(abs(row.difference) <= 0.6 for row in condconv) == len(condconv) - 1
