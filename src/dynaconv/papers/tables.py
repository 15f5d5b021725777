"""Every cost figure of the two papers beside ours, which is counted from the networks at every call and not stored."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from importlib import resources

from dynaconv.counting import CostReport
from dynaconv.papers.networks import TableNetwork, count, network_of_row

WORTH_A_CAUSE = 0.5
"""Differences above this many percent are explained, or said to be unexplained."""


UNEXPLAINED = "unexplained"

# The first pattern that matches in "paper | table | row | quantity" gives the cause of a difference.
_CAUSES: tuple[tuple[str, str], ...] = (
    (r"SSD300", "the printed figures of 0.75x and 1.0x look rounded to 5 or 10 million"),
    (
        r"type A",
        "impossible as printed: one figure for inputs of 512, 1280 and 576 channels; ours is counted at this input",
    ),
    (
        r"type B .*madds",
        "the last 1x1 convolution is 6.69 of it; the blocks alone are 1.03 times the printed figure, unexplained",
    ),
    (r"App. A \| CondConv-MnasNet-A1", "the paper contradicts itself: 325 in Table 1 (reproduced), 329 here"),
    (r"MobileNetV2 1.4x|EfficientNet-B1", "the printed figure is that of the network's own paper, not of this rule"),
    (
        r"Table 2 \| CondConv x.* params",
        "the text leaves open which blocks are dynamic; beginning at block 7 instead of 2 comes nearer",
    ),
    (r"(DY-|K=).* madds", "the paper's formula taken literally; no reading of it gives the printed figure"),
    (r"ResNet.* params", "the paper's M seems to be 2^20, and its DY figures to leave out the shortcut convolutions"),
    (
        r"Table 8 \| MobileNetV3-Small \| params",
        "2.9 is without squeeze-and-excitation on the last convolution; the paper's other rows of this network have it",
    ),
    (
        r"Table 8 \| MobileNetV3-Small \| madds",
        "66 is the figure of Howard et al., quoted; this is their network counted",
    ),
    (r"backbone .* madds", "printed: Table 8's figure without the classifier, times 48/49; ours is counted at 256x192"),
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One published figure and ours, in millions.

    Attributes:
        paper, table, row, quantity, published: as in ``published.csv``.
        ours: None where the network is not part of this package.
        rule: how ours was counted: ``"tf"``, ``"dy"`` (see :mod:`dynaconv.counting.rules`) or ``"parameters"``.
        note: the plain MAdds, and the cause of a difference.
    """

    paper: str
    table: str
    row: str
    quantity: str
    published: float
    ours: float | None
    rule: str
    note: str

    @property
    def difference(self) -> float | None:
        """The difference of ours from the published figure, in percent."""
        return None if self.ours is None else 100 * (self.ours / self.published - 1)


def count_tables(progress: Callable[[int, int], None] | None = None) -> list[Row]:
    """Count every network of the published tables on the meta device; every network once.

    Args:
        progress: called after every row with the number of rows done and of all rows.
    """
    counted: dict[TableNetwork, CostReport] = {}
    published = published_figures()
    rows = []
    for figure in published:
        rows.append(_row(figure, counted))
        if progress is not None:
            progress(len(rows), len(published))
    return rows


def published_figures() -> list[dict[str, str]]:
    """The rows of ``published.csv``: paper, table, row, quantity (``madds_m`` or ``params_m``), published."""
    text = (resources.files("dynaconv.papers") / "published.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def _row(published: dict[str, str], counted: dict[TableNetwork, CostReport]) -> Row:
    figure = float(published["published"])
    words = published["paper"], published["table"], published["row"], published["quantity"]
    row = partial(Row, paper=words[0], table=words[1], row=words[2], quantity=words[3], published=figure)
    about = network_of_row(*words[:3])
    rule = _rule(published, about)
    if about is None:
        return row(ours=None, rule=rule, note="not counted: this network is not in the package")
    if about not in counted:
        counted[about] = count(about)
    report = counted[about]
    ours = report.parameters.total if rule == "parameters" else report.under(rule).total
    made = row(ours=round(ours / 1e6, 4), rule=rule, note=_beside(report, rule, words))
    if abs(made.difference or 0.0) <= WORTH_A_CAUSE:
        return made
    cause = cause_of(words, published["published"], ours / 1e6)
    return replace(made, note="; ".join(part for part in (made.note, cause) if part))


def _rule(published: dict[str, str], about: TableNetwork | None) -> str:
    if published["quantity"] == "params_m":
        return "parameters"
    condconv = published["paper"] == "CondConv" or (about is not None and about.name.startswith("condconv"))
    return "tf" if condconv else "dy"


def _beside(report: CostReport, rule: str, words: tuple[str, ...]) -> str:
    """Additional counts: plain MAdds; for the ResNets of Chen et al. parameters in units of 2^20."""
    if rule != "parameters":
        return f"plain MAdds {report.total / 1e6:.2f}"
    if words[0] == "DynamicConv" and "ResNet" in words[2] and "head" not in words[2]:
        return f"{report.parameters.total / 2**20:.2f} in units of 2^20"
    return ""


def cause_of(words: tuple[str, ...], published: str, ours: float) -> str:
    """The cause of a difference.

    Args:
        words: paper, table, row, quantity.
        published: the figure as printed; its last digit shows how it was rounded.
        ours: the count, in the same unit.
    """
    text = " | ".join(words)
    known = next((cause for pattern, cause in _CAUSES if re.search(pattern, text)), None)
    if known is not None:
        return known
    last_digit = 10.0 ** int(Decimal(published).as_tuple().exponent)
    excess = ours - float(published)
    if abs(excess) <= last_digit / 2:
        return "the printed figure is rounded"
    if 0 < excess < last_digit:
        return "the printed figure is truncated"
    return UNEXPLAINED
