"""The cost report as an aligned plain-text table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dynaconv.cost.rules import RULES

if TYPE_CHECKING:
    from dynaconv.cost.report import CostReport, LayerCost

_COLUMNS = ("kernel", "mixing", "routing", "elementwise")


def render_table(report: CostReport, *, all_layers: bool) -> str:
    """Answer the table of ``report``; columns in which nothing stands are left out."""
    columns = [name for name in _COLUMNS if name == "kernel" or getattr(report, name)]
    layers = [layer for layer in report.layers if all_layers or layer.total or layer.experts]
    header = ["layer", "kind", "output", "params", *columns]
    rows = [_cells(layer, columns) for layer in layers]
    hidden = len(report.layers) - len(layers)
    if hidden:
        rest = sum(layer.parameters for layer in report.layers) - sum(layer.parameters for layer in layers)
        rows.append([f"({hidden} layers without cost)", "", "", short(rest), *[""] * len(columns)])
    total = ["total", "", "", short(report.parameters.total), *[short(getattr(report, name)) for name in columns]]
    return "\n".join([*_aligned(header, [*rows, total]), "", *_summary(report)])


def short(number: float) -> str:
    """Write a count briefly, as the papers do.

    >>> short(300_774_272), short(12_345), short(640)
    ('300.77M', '12.35k', '640')
    """
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 10 * size or (unit != "G" and number >= size):
            return f"{number / size:.2f}{unit}"
    return f"{number:g}"


def _cells(layer: LayerCost, columns: Sequence[str]) -> list[str]:
    shape = "x".join(map(str, layer.output_shape)) if layer.output_shape is not None else "not run"
    kind = layer.kind if layer.experts is None else f"{layer.kind} K={layer.experts}"
    numbers = [short(getattr(layer, name)) for name in columns]
    return [layer.name or "(model)", kind, shape, short(layer.parameters), *numbers]


def _aligned(header: list[str], rows: list[list[str]]) -> list[str]:
    """Text columns to the left, numbers to the right; a rule under the header and over the last row."""
    widths = [max(len(row[place]) for row in [header, *rows]) for place in range(len(header))]

    def line(row: list[str]) -> str:
        cells = [c.ljust(w) if place < 3 else c.rjust(w) for place, (c, w) in enumerate(zip(row, widths, strict=True))]
        return "  ".join(cells).rstrip()

    bar = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return [line(header), bar, *map(line, rows[:-1]), bar, line(rows[-1])]


def _summary(report: CostReport) -> list[str]:
    parameters, peak = report.parameters, report.peak_activation_bytes
    apart = ", ".join(f"{name} {short(getattr(report, name))}" for name in _COLUMNS if getattr(report, name))
    lines = [
        f"MAdds       {short(report.total)} ({report.total:,.10g}) by rule {report.rule!r}: {RULES[report.rule].title}",
        f"            {apart}" if apart else "",
        f"parameters  {parameters.total:,} stored, {parameters.trainable:,} trainable"
        + (f", {parameters.experts:,} in experts, {parameters.routers:,} in routers" if parameters.experts else ""),
        f"activations {peak:,} bytes at the peak ({peak / 2**20:.2f} MiB)",
    ]
    if report.bias_mixing:
        lines.append(f"not counted {short(report.bias_mixing)} for mixing per-expert biases, as in the papers")
    return [line for line in lines if line]
