"""What a network costs: multiply-adds, parameters and memory, counted from the operations that it performs."""

from __future__ import annotations

from dynaconv.cost.counter import UncountedOperationError, cost
from dynaconv.cost.formulas import register_rule
from dynaconv.cost.input_size import parse_input_size
from dynaconv.cost.protocol import Counted, LayerCount, layer_count
from dynaconv.cost.report import CostReport, LayerCost, ParameterCount
from dynaconv.cost.rules import RULES

__all__ = [
    "RULES",
    "CostReport",
    "Counted",
    "LayerCost",
    "LayerCount",
    "ParameterCount",
    "UncountedOperationError",
    "cost",
    "layer_count",
    "parse_input_size",
    "register_rule",
]
