"""Every cost figure that the two papers print, beside ours: counted from the networks when asked, never stored."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from functools import partial
from importlib import resources
from typing import Any

import timm
import torch
from torch import Tensor, nn

from dynaconv.counting import CostReport, cost
from dynaconv.papers.causes import cause_of
from dynaconv.papers.subjects import Subject, subject_of

WORTH_A_CAUSE = 0.5
"""Differences above this many percent are explained, or said to be unexplained."""


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
        """Ours against published, in percent."""
        return None if self.ours is None else 100 * (self.ours / self.published - 1)


def tables() -> list[Row]:
    """Count every network of the published tables on the meta device; every network once."""
    counted: dict[Subject, CostReport] = {}
    return [_row(published, counted) for published in published_figures()]


def published_figures() -> list[dict[str, str]]:
    """The rows of ``published.csv``: paper, table, row, quantity (``madds_m`` or ``params_m``), published."""
    text = (resources.files("dynaconv.papers") / "published.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def count(subject: Subject) -> CostReport:
    """The cost of one network of a table, under plain MAdds (``report.under(rule)`` tells the others)."""
    with torch.device("meta"):
        model: nn.Module = timm.create_model(subject.name, **dict(subject.arguments))  # type: ignore[arg-type]
    return cost(_Backbone(model) if subject.backbone else model, subject.input_size)


class _Backbone(nn.Module):
    """A network without its classifier."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        model.reset_classifier(0)
        if hasattr(model, "norm_head"):  # MobileNetV3: this convolution stands after the pooling
            model.conv_head = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.model.forward_features(x)


def _row(published: dict[str, str], counted: dict[Subject, CostReport]) -> Row:
    figure = float(published["published"])
    words = published["paper"], published["table"], published["row"], published["quantity"]
    row = partial(Row, paper=words[0], table=words[1], row=words[2], quantity=words[3], published=figure)
    about = subject_of(*words[:3])
    rule = _rule(published, about)
    if about is None:
        return row(ours=None, rule=rule, note=_missing(published))
    if about not in counted:
        counted[about] = count(about)
    report = counted[about]
    ours = report.parameters.total if rule == "parameters" else report.under(rule).total
    made = row(ours=round(ours / 1e6, 4), rule=rule, note=_beside(report, rule, words))
    if abs(made.difference or 0.0) <= WORTH_A_CAUSE:
        return made
    cause = cause_of(words, published["published"], ours / 1e6)
    return replace(made, note="; ".join(part for part in (made.note, cause) if part))


def _rule(published: dict[str, str], about: Subject | None) -> str:
    if published["quantity"] == "params_m":
        return "parameters"
    condconv = published["paper"] == "CondConv" or (about is not None and about.name.startswith("condconv"))
    return "tf" if condconv else "dy"


def _beside(report: CostReport, rule: str, words: tuple[str, ...]) -> str:
    """What else can be counted: plain MAdds; for the ResNets of Chen et al. parameters in units of 2^20."""
    if rule != "parameters":
        return f"plain MAdds {report.total / 1e6:.2f}"
    if words[0] == "DynamicConv" and "ResNet" in words[2]:
        return f"{report.parameters.total / 2**20:.2f} in units of 2^20"
    return ""


def _missing(published: dict[str, str]) -> str:
    head = "head on" in published["row"] or "head Mobile" in published["row"]
    what = "keypoint head" if head else "SSD detector"
    return f"not counted: the {what} is not among the networks of this package yet"
