"""The three counting rules: what is added to the plain multiply-adds, operation by operation.

``madds``
    Multiply-adds of convolutions, matrix products and attention, nothing else.
``tf``
    The CondConv paper's numbers, which are TensorFlow's profiler ``float_ops / 2``: the plain multiply-adds, and half
    of every elementwise operation that the profiler knows (products of swish and of squeeze-and-excitation, additions
    of a residual, bias additions, means, ``k * k`` per output of a pooling). What the profiler does not know costs
    nothing here either: batch normalisation, ReLU, sigmoid.
    Source: Yang et al. 2019, sections 4 and A; the profiler's table of operations (``flops_registry``).
``dy``
    The dynamic-convolution paper's formula taken literally (Chen et al. 2020, section 3.2), on top of plain:
    ``H*W*Cin + Cin*floor(Cin/4) + floor(Cin/4)*K + K*W`` per dynamic convolution. The products and the mixing are
    multiply-adds already, so the one thing to add is ``H*W*Cin`` for the mean inside a router. The term ``K*Cout`` of
    the formula is left out: no layer of the paper mixes a bias.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._ops import OpOverload, OpOverloadPacket

from dynaconv.errors import suggest

aten = torch.ops.aten

ELEMENTWISE, MEAN, POOLING, BIAS = "elementwise", "mean", "pooling", "bias"
"""The kinds of operation that a rule may weigh."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Multiply-adds per elementary operation of each kind, in the model and inside its routers."""

    name: str
    title: str
    in_model: Mapping[str, float] = field(default_factory=dict)
    in_router: Mapping[str, float] = field(default_factory=dict)

    def extra(self, op: OpOverload, args: tuple[Any, ...], result: Any, *, routing: bool) -> float:
        """Answer what this rule adds to the plain multiply-adds of one operation."""
        weights = self.in_router if routing else self.in_model
        known = _OPERATIONS.get(op.overloadpacket)
        if not weights or known is None:
            return 0
        kind, count = known
        return weights.get(kind, 0) * count(args, result)

    def extra_bias(self, elements: int) -> float:
        """Answer what this rule adds for ``elements`` bias additions of a layer that states its own cost."""
        return self.in_model.get(BIAS, 0) * elements


_HALF = {ELEMENTWISE: 0.5, MEAN: 0.5, POOLING: 0.5, BIAS: 0.5}

RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule(name="madds", title="plain multiply-adds"),
        Rule(name="tf", title="TensorFlow profiler (CondConv paper)", in_model=_HALF, in_router=_HALF),
        Rule(name="dy", title="dynamic-convolution paper, literal formula", in_router={MEAN: 1}),
    )
}


def rule_named(name: str) -> Rule:
    """Answer the rule called ``name``, or raise ValueError with the nearest known name."""
    if not isinstance(name, str) or name not in RULES:
        raise ValueError(f"rule is {name!r}: there is no such counting rule. {suggest(str(name), RULES)}")
    return RULES[name]


Count = Callable[[tuple[Any, ...], Any], float]


def _per_output(operations: int) -> Count:
    """``operations`` per element of the result; index arithmetic (integers) is not part of the network's cost."""

    def count(args: tuple[Any, ...], result: Any) -> float:
        first = result[0] if isinstance(result, (tuple, list)) else result
        return operations * first.numel() if first.is_floating_point() else 0

    return count


def _per_input(args: tuple[Any, ...], result: Any) -> float:
    return args[0].numel()


def _sum(args: tuple[Any, ...], result: Any) -> float:
    """A sum of n numbers is n - 1 additions; a mean, with its division, n."""
    return args[0].numel() - result.numel()


def _window(dims: int) -> Count:
    """Pooling: the size of the window per element of the result."""

    def count(args: tuple[Any, ...], result: Any) -> float:
        kernel = args[1] if isinstance(args[1], (tuple, list)) else [args[1]]
        window = math.prod(kernel) if len(kernel) == dims else kernel[0] ** dims
        return window * (result[0] if isinstance(result, (tuple, list)) else result).numel()

    return count


def _bias(position: int) -> Count:
    def count(args: tuple[Any, ...], result: Any) -> float:
        return result.numel() if args[position] is not None else 0

    return count


_OPERATIONS: dict[OpOverloadPacket, tuple[str, Count]] = {
    **{
        op: (ELEMENTWISE, _per_output(1))
        for op in (
            *(aten.add, aten.add_, aten.sub, aten.sub_, aten.rsub, aten.mul, aten.mul_, aten.div, aten.div_, aten.neg),
            *(aten.maximum, aten.minimum, aten.pow, aten.square, aten.log, aten.reciprocal),
            *(aten.silu, aten.silu_),  # x * sigmoid(x): one product
        )
    },
    aten.rsqrt: (ELEMENTWISE, _per_output(2)),
    aten.hardsigmoid: (ELEMENTWISE, _per_output(2)),  # relu6(x + 3) / 6
    aten.hardsigmoid_: (ELEMENTWISE, _per_output(2)),
    aten.hardswish: (ELEMENTWISE, _per_output(3)),  # x * relu6(x + 3) / 6
    aten.hardswish_: (ELEMENTWISE, _per_output(3)),
    aten.gelu: (ELEMENTWISE, _per_output(4)),  # x / 2 * (1 + erf(x / sqrt 2))
    aten.gelu_: (ELEMENTWISE, _per_output(4)),
    aten._softmax: (ELEMENTWISE, _per_output(5)),
    aten.mean: (MEAN, _per_input),
    aten._adaptive_avg_pool2d: (MEAN, _per_input),
    aten._adaptive_avg_pool3d: (MEAN, _per_input),
    aten.sum: (MEAN, _sum),
    aten.avg_pool1d: (POOLING, _window(1)),
    aten.avg_pool2d: (POOLING, _window(2)),
    aten.avg_pool3d: (POOLING, _window(3)),
    aten.max_pool2d_with_indices: (POOLING, _window(2)),
    aten.max_pool3d_with_indices: (POOLING, _window(3)),
    aten.convolution: (BIAS, _bias(2)),
    aten.addmm: (BIAS, _bias(0)),
    aten.baddbmm: (BIAS, _bias(0)),
    aten.addmv: (BIAS, _bias(0)),
}
