"""The result of the counter: costs per layer, totals, and output as JSON, CSV and text."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from torch import nn

from dynaconv.counting.modules import Ledger
from dynaconv.counting.protocol import is_counted
from dynaconv.counting.rules import Rule, rule_named
from dynaconv.counting.table import render_table, summary, table_cells
from dynaconv.notebook import html_table


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """One layer: a module with parameters of its own, or with work of its own.

    A router inside a dynamic layer belongs to that layer's row; a router that a scope shares has a row of its own.

    Attributes:
        name: the module's name in the model ("" is the model itself).
        kind: its class.
        calls: how often it ran; 0 for a module whose parameters the forward pass does not use, or uses without a call.
        output_shape: of its first call, with the batch; None if it did not run.
        parameters: stored in this row; a shared parameter counts in the first row only, so the rows sum to the total.
        experts: K of a dynamic layer, else None.
        kernel: multiply-adds of the ordinary operation (convolution, matrix product, attention).
        mixing: multiply-adds of mixing the experts.
        routing: what the rule counts for the router.
        elementwise: what the rule counts beside multiply-adds, outside the routers (0 under "madds" and "dy").
        bias_mixing: multiply-adds of mixing per-expert biases; in no total (see LayerCount).
    """

    name: str
    kind: str
    calls: int
    output_shape: tuple[int, ...] | None
    parameters: int
    experts: int | None
    kernel: float
    mixing: float
    routing: float
    elementwise: float
    bias_mixing: float

    @property
    def total(self) -> float:
        """kernel + mixing + routing + elementwise."""
        return self.kernel + self.mixing + self.routing + self.elementwise


@dataclass(frozen=True, kw_only=True)
class ParameterCount:
    """Parameters as stored: one that several modules share counts once.

    ``experts`` are those of the dynamic layers' banks (with their per-expert biases), ``routers`` those of the routers.
    """

    total: int
    trainable: int
    experts: int
    routers: int


@dataclass(frozen=True, kw_only=True)
class CostReport:
    """The cost of one forward pass of one example in evaluation mode. ``print(report)`` shows the table.

    Attributes:
        model: the model's class.
        rule: name of the counting rule.
        input_shapes: shapes of the inputs, with the batch.
        layers: rows in the order in which they ran; their columns sum to the totals.
        parameters: parameters as stored.
        peak_activation_bytes: the largest sum of simultaneously live activations (see :func:`dynaconv.counting.cost`).
        ledgers: the raw counts, before the rule is applied.
    """

    model: str
    rule: str
    input_shapes: tuple[tuple[int, ...], ...]
    layers: tuple[LayerCost, ...]
    parameters: ParameterCount
    peak_activation_bytes: int
    ledgers: tuple[Ledger, ...] = field(repr=False, compare=False)

    def under(self, rule: str) -> CostReport:
        """Return this report under another counting rule, without running the model again."""
        chosen = rule_named(rule)
        return replace(self, rule=chosen.name, layers=rows(self.ledgers, chosen))

    @property
    def kernel(self) -> float:
        """Multiply-adds of the ordinary operations: those of the static twin."""
        return self._sum("kernel")

    @property
    def mixing(self) -> float:
        """Multiply-adds of mixing the experts."""
        return self._sum("mixing")

    @property
    def routing(self) -> float:
        """What the rule counts for the routers."""
        return self._sum("routing")

    @property
    def elementwise(self) -> float:
        """What the rule counts beside multiply-adds, outside the routers."""
        return self._sum("elementwise")

    @property
    def bias_mixing(self) -> float:
        """Multiply-adds of mixing per-expert biases, which no rule counts."""
        return self._sum("bias_mixing")

    @property
    def total(self) -> float:
        """The MAdds of the network under the rule: kernel + mixing + routing + elementwise."""
        return self.kernel + self.mixing + self.routing + self.elementwise

    def to_dict(self) -> dict[str, Any]:
        """Return the whole report as plain values (numbers, strings, lists, dictionaries)."""
        return {
            "model": self.model,
            "rule": self.rule,
            "input_shapes": [list(shape) for shape in self.input_shapes],
            "madds": {name: _plain(getattr(self, name)) for name in ("total", *_COUNTS)},
            "parameters": asdict(self.parameters),
            "peak_activation_bytes": self.peak_activation_bytes,
            "layers": [_row(layer) for layer in self.layers],
        }

    def to_json(self, indent: int | None = 2) -> str:
        """Return :meth:`to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=indent)

    def to_csv(self) -> str:
        """Return one line per layer, with a header and without totals: the columns sum to them."""
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=_FIELDS, lineterminator="\n")
        writer.writeheader()
        for layer in self.layers:
            row = _row(layer)
            row["output_shape"] = "x".join(map(str, layer.output_shape)) if layer.output_shape is not None else ""
            writer.writerow(row)
        return text.getvalue()

    def table(self, *, all_layers: bool = False) -> str:
        """Return an aligned plain-text table: the layers that cost something (or all), then the totals."""
        return render_table(self.to_dict(), all_layers=all_layers)

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        """The table, for notebooks."""
        plain = self.to_dict()
        header, cells = table_cells(plain, all_layers=False)
        return html_table(header, cells, right=range(3, len(header)), notes=summary(plain), total=True)

    def _sum(self, column: str) -> float:
        return sum(getattr(layer, column) for layer in self.layers)


def rows(ledgers: tuple[Ledger, ...], rule: Rule) -> tuple[LayerCost, ...]:
    """Return the rows of the modules that did or hold something, as ``rule`` weighs them."""
    weighed = (_weighed(ledger, rule) for ledger in ledgers)
    return tuple(row for row in weighed if row.parameters or row.total or row.experts)


def _weighed(ledger: Ledger, rule: Rule) -> LayerCost:
    return LayerCost(
        name=ledger.name,
        kind=ledger.kind,
        calls=ledger.calls,
        output_shape=ledger.output_shape,
        parameters=ledger.parameters,
        experts=ledger.experts,
        kernel=ledger.kernel,
        mixing=ledger.mixing,
        routing=ledger.routing + rule.weigh(ledger.elementary_in_router, routing=True),
        elementwise=rule.weigh(ledger.elementary, routing=False),
        bias_mixing=ledger.bias_mixing,
    )


_COUNTS = ("kernel", "mixing", "routing", "elementwise", "bias_mixing")
_FIELDS = ("name", "kind", "calls", "output_shape", "parameters", "experts", "total", *_COUNTS)


def _row(layer: LayerCost) -> dict[str, Any]:
    shape = None if layer.output_shape is None else list(layer.output_shape)
    values = {name: getattr(layer, name) for name in _FIELDS}
    return {**values, "output_shape": shape, **{name: _plain(values[name]) for name in ("total", *_COUNTS)}}


def _plain(number: float) -> float:
    """Whole numbers as int: only the tf rule has halves."""
    return int(number) if number == int(number) else number


def count_parameters(model: nn.Module, ledgers: dict[nn.Module, Ledger]) -> ParameterCount:
    """Count every parameter once, in the ledger of its row, and return the sums."""
    seen: set[int] = set()
    total = trainable = experts = routers = 0
    for name, module in model.named_modules():
        row, routing = _row_of(model, name)
        for parameter in module.parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            size = parameter.numel()
            ledgers[row].parameters += size
            total += size
            trainable += size if parameter.requires_grad else 0
            routers += size if routing else 0
            experts += size if is_counted(module) and not routing else 0
    return ParameterCount(total=total, trainable=trainable, experts=experts, routers=routers)


def _row_of(model: nn.Module, name: str) -> tuple[nn.Module, bool]:
    """Return the module whose row holds the parameters of the module called ``name``, and whether it serves routing.

    As for operations: the parameters of a router belong to its dynamic layer, or else to the outermost router.
    """
    path = [model]
    for part in name.split(".") if name else []:
        path.append(path[-1].get_submodule(part))
    outermost = next((place for place, module in enumerate(path) if getattr(module, "is_router", False)), None)
    if outermost is None:
        return path[-1], False
    layer = next((module for module in reversed(path[:outermost]) if is_counted(module)), path[outermost])
    return layer, True
