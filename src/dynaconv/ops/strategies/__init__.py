"""The strategies by name, one file each."""

from __future__ import annotations

from dynaconv.ops.strategies import (
    branches,
    experts,
    grouped,
    loop,
    matmul,
    operator,
    single,
    stencil,
    tiled,
    triton,
    unfold,
)
from dynaconv.ops.strategies.strategy import Strategy

STRATEGIES: dict[str, Strategy] = {
    "stencil": stencil.STRATEGY,
    "single": single.STRATEGY,
    "tiled": tiled.STRATEGY,
    "experts": experts.STRATEGY,
    "matmul": matmul.STRATEGY,
    "loop": loop.STRATEGY,
    "grouped": grouped.STRATEGY,
    "branches": branches.STRATEGY,
    "unfold": unfold.STRATEGY,
    "triton": triton.STRATEGY,
    "operator": operator.STRATEGY,
}

__all__ = ["STRATEGIES", "Strategy"]
