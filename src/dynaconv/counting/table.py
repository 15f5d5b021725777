"""The cost report as an aligned plain-text table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dynaconv.counting.rules import RULES

Plain = Mapping[str, Any]

_COLUMNS = ("kernel", "mixing", "routing", "elementwise")


def render_table(report: Plain, *, all_layers: bool) -> str:
    """Return the table of a report's plain values (``to_dict``); empty columns are left out."""
    header, rows = table_cells(report, all_layers=all_layers)
    return "\n".join([*_aligned(header, rows), "", *summary(report)])


def table_cells(report: Plain, *, all_layers: bool) -> tuple[list[str], list[list[str]]]:
    """Return the table's header and its rows, the last of which is the total; the first three columns are words."""
    madds, parameters = report["madds"], report["parameters"]
    columns = [name for name in _COLUMNS if name == "kernel" or madds[name]]
    layers = [layer for layer in report["layers"] if all_layers or layer["total"] or layer["experts"]]
    header = ["layer", "kind", "output", "params", *columns]
    rows = [_cells(layer, columns) for layer in layers]
    hidden = len(report["layers"]) - len(layers)
    if hidden:
        rest = parameters["total"] - sum(layer["parameters"] for layer in layers)
        rows.append([f"({hidden} layers without cost)", "", "", short(rest), *[""] * len(columns)])
    total = ["total", "", "", short(parameters["total"]), *[short(madds[name]) for name in columns]]
    return header, [*rows, total]


def short(number: float) -> str:
    """Write a count briefly, as the papers do.

    >>> short(300_774_272), short(12_345), short(640)
    ('300.77M', '12.35k', '640')
    """
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 10 * size or (unit != "G" and number >= size):
            return f"{number / size:.2f}{unit}"
    return f"{number:g}"


def _cells(layer: Plain, columns: Sequence[str]) -> list[str]:
    shape = "not run" if layer["output_shape"] is None else "x".join(map(str, layer["output_shape"]))
    kind = layer["kind"] if layer["experts"] is None else f"{layer['kind']} K={layer['experts']}"
    numbers = [short(layer[name]) for name in columns]
    return [layer["name"] or "(model)", kind, shape, short(layer["parameters"]), *numbers]


def _aligned(header: list[str], rows: list[list[str]]) -> list[str]:
    """Text columns to the left, numbers to the right; a rule under the header and over the last row."""
    widths = [max(len(row[place]) for row in [header, *rows]) for place in range(len(header))]

    def line(row: list[str]) -> str:
        cells = [c.ljust(w) if place < 3 else c.rjust(w) for place, (c, w) in enumerate(zip(row, widths, strict=True))]
        return "  ".join(cells).rstrip()

    bar = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return [line(header), bar, *map(line, rows[:-1]), bar, line(rows[-1])]


def summary(report: Plain) -> list[str]:
    """Return the lines under the table: totals by kind, parameters, memory."""
    madds, parameters, peak = report["madds"], report["parameters"], report["peak_activation_bytes"]
    apart = ", ".join(f"{name} {short(madds[name])}" for name in _COLUMNS if madds[name])
    dynamic = f", {parameters['experts']:,} in experts, {parameters['routers']:,} in routers"
    lines = [
        f"MAdds       {short(madds['total'])} ({madds['total']:,.10g}) by rule {report['rule']!r}: "
        f"{RULES[report['rule']].title}",
        f"            {apart}" if apart else "",
        f"parameters  {parameters['total']:,} stored, {parameters['trainable']:,} trainable"
        + (dynamic if parameters["experts"] else ""),
        f"activations {peak:,} bytes at the peak ({peak / 2**20:.2f} MiB)",
    ]
    if madds["bias_mixing"]:
        lines.append(f"not counted {short(madds['bias_mixing'])} for mixing per-expert biases, as in the papers")
    return [line for line in lines if line]
