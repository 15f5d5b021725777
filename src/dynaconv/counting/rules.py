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

from collections.abc import Mapping
from dataclasses import dataclass, field

from dynaconv.counting.elementary import BIAS, ELEMENTWISE, MEAN, POOLING
from dynaconv.errors import suggest


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What an elementary operation of each kind weighs, in the model and inside its routers."""

    name: str
    title: str
    in_model: Mapping[str, float] = field(default_factory=dict)
    in_router: Mapping[str, float] = field(default_factory=dict)

    def weigh(self, tally: Mapping[str, float], *, routing: bool) -> float:
        """Answer what this rule adds to the plain multiply-adds for a tally of elementary operations."""
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
    """Answer the rule called ``name``, or raise ValueError with the nearest known name."""
    if not isinstance(name, str) or name not in RULES:
        raise ValueError(f"rule is {name!r}: there is no such counting rule. {suggest(str(name), RULES)}")
    return RULES[name]
