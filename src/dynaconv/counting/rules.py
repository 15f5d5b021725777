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

from dynaconv.errors import suggest
from dynaconv.torch_private import OpOverload, OpOverloadPacket

aten = torch.ops.aten

ELEMENTWISE, MEAN, POOLING, BIAS = "elementwise", "mean", "pooling", "bias"
"""The kinds of elementary operation."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """The weight of each kind of elementary operation, in the model and inside its routers."""

    name: str
    title: str
    in_model: Mapping[str, float] = field(default_factory=dict)
    in_router: Mapping[str, float] = field(default_factory=dict)

    def weigh(self, tally: Mapping[str, float], *, routing: bool) -> float:
        """Return what this rule adds to the plain multiply-adds for a tally of elementary operations."""
        weights = self.in_router if routing else self.in_model
        return sum(weights.get(kind, 0) * number for kind, number in tally.items())


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
    """Return the rule called ``name``, or raise ValueError with the nearest known name."""
    if not isinstance(name, str) or name not in RULES:
        raise ValueError(f"rule is {name!r}: there is no such counting rule. {suggest(str(name), RULES)}")
    return RULES[name]


# Elementary operations: what networks compute beside multiply-adds, as TensorFlow's profiler counts it. The table
# follows the profiler's own (``flops_registry``): one operation per element of a sum or product, the size of the window
# per output of a pooling, one per input element of a mean. Activations are counted by the sums and products of their
# formula. Operations that are not in the table (batch normalisation, ReLU, sigmoid) cost nothing in the profiler.


def elementary(op: OpOverload, args: tuple[Any, ...], result: Any) -> tuple[str, float] | None:
    """Return the kind and the number of the elementary operations that ``op`` performs, or None."""
    known = _OPERATIONS.get(op.overloadpacket)
    return (known[0], known[1](args, result)) if known else None


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
