"""What a network costs: multiply-adds, parameters and memory, counted from the operations that it performs."""

from __future__ import annotations

from dynaconv.counting.counter import UncountedOperationError, cost
from dynaconv.counting.dry_run import parse_input_size
from dynaconv.counting.formulas import register_rule
from dynaconv.counting.protocol import Counted, LayerCount, layer_count
from dynaconv.counting.report import CostReport, LayerCost, ParameterCount
from dynaconv.counting.rules import RULES

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
