"""Which strategy runs a call, why, and why not the others."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from dynaconv.errors import suggest
from dynaconv.kernels.cpu import keeps_memory
from dynaconv.ops import branches, fused, grouped, loop, matmul, measured, single, stencil, tiled, unfold
from dynaconv.ops.call import Call
from dynaconv.ops.geometry import Geometry


class Strategy(NamedTuple):
    """One way to run the mixing operation: when it cannot, and how it does."""

    refuses: Callable[[Call], str | None]
    run: Callable[[Tensor, Tensor, Tensor, Tensor | None, Geometry], Tensor]
    unasked: str = "slower here"  # why a call that it could run goes elsewhere


STRATEGIES: dict[str, Strategy] = {
    "stencil": Strategy(stencil.refuses, stencil.run),
    "single": Strategy(single.refuses, single.run),
    "tiled": Strategy(tiled.refuses, tiled.run),
    "matmul": Strategy(matmul.refuses, matmul.run),
    "loop": Strategy(loop.refuses, loop.run),
    "grouped": Strategy(grouped.refuses, grouped.run),
    "branches": Strategy(branches.refuses, branches.run),
    "unfold": Strategy(unfold.refuses, unfold.run),
    "triton": Strategy(fused.refuses, fused.run, fused.UNASKED),
}

CHOICES = ("auto", "reference", *STRATEGIES)


@dataclass(frozen=True)
class Plan:
    """The strategy of a call, why it was chosen, and for every other one why not."""

    strategy: str
    why: str
    others: dict[str, str]

    def __str__(self) -> str:
        lines = [f"{self.strategy}: {self.why}"]
        return "\n".join(lines + [f"  not {name}: {reason}" for name, reason in self.others.items()])


def check_choice(strategy: str) -> None:
    """Raise ValueError unless ``strategy`` is ``"auto"``, ``"reference"`` or the name of a strategy."""
    if strategy not in CHOICES:
        raise ValueError(f"strategy is {strategy!r}. {suggest(str(strategy), CHOICES)}")


def choose(call: Call, strategy: str = "auto") -> str:
    """The name of the strategy that runs ``call``; an explicit choice is obeyed or raises ValueError."""
    if strategy != "auto":
        check_choice(strategy)
        reason = None if strategy == "reference" else STRATEGIES[strategy].refuses(call)
        if reason is not None:
            raise ValueError(f"strategy {strategy!r} cannot run this call: {reason}; choose 'auto' or another one")
        return strategy
    timed = measured.best(call)
    return by_rule(call) if timed is None else timed[0]


def by_rule(call: Call) -> str:
    """The strategy that is taken where nothing was measured (:func:`dynaconv.tune`)."""
    return next(name for name, _ in _preferences(call) if STRATEGIES[name].refuses(call) is None)


def plan(call: Call, strategy: str = "auto") -> Plan:
    """As :func:`choose`, with the reasons."""
    chosen = choose(call, strategy)
    reasons, unasked = dict(_preferences(call)), {name: one.unasked for name, one in STRATEGIES.items()}
    timed = measured.best(call) if strategy == "auto" else None
    if timed is not None:
        spent = {name: f"measured here: {milliseconds:.2f} ms" for name, milliseconds in timed[1].items()}
        reasons = {**reasons, **spent}
    others = {}
    for name, candidate in STRATEGIES.items():
        if name != chosen:
            others[name] = candidate.refuses(call) or f"possible, but {reasons.get(name, unasked[name])}"
    return Plan(chosen, "you asked for it" if strategy != "auto" else reasons[chosen], others)


def _preferences(call: Call) -> tuple[tuple[str, str], ...]:
    """Strategies in the order of preference, each with the reason that stands when it is the first that can run."""
    if call.exporting:
        if call.depthwise and not call.pointwise:
            return (("branches", "a depthwise layer exports with a free batch as K cheap convolutions"),)
        return (
            ("matmul", "a 1x1 kernel is one matrix product, and the batch stays free"),
            ("unfold", "only a product over patches keeps the batch free"),
        )
    stencil = ("stencil", "a depthwise layer in channels_last is one pass over the maps, with a kernel of our own")
    single = ("single", "one example needs one ordinary convolution")
    product = ("matmul", "a 1x1 kernel or a linear layer is one batched matrix product")
    tiled = (("tiled", "large kernels are mixed into the cache block by block, never written"),) * _tiles_pay(call)
    large = math.prod(call.x_shape[1:]) >= _LARGE and not keeps_memory()
    if call.device == "cpu" and not call.compiling and large:
        return (single, stencil, *tiled, product, ("loop", _WHY_LOOP))
    return (single, stencil, *tiled, product, ("grouped", "one convolution serves the whole batch"))


def _tiles_pay(call: Call) -> bool:
    """Laying out the bank costs a pass over it at every call, which few examples or small kernels do not repay.

    Measured on a CPU, forward and backward (docs/performance.md, step 16): 3x3 kernels from 8 examples on, 1x1 kernels
    from 16 examples on where they are of 40,000 numbers and more.
    """
    if call.pointwise:
        return call.batch >= 16 and math.prod(call.bank_shape[1:]) >= 40_000
    return call.batch >= 8


# Numbers in one example. Measured on a CPU (docs/performance.md, steps 4 and 8): where freed memory goes back to the
# system, 3x3 convolutions of 75,000 numbers an example are faster grouped, those of 200,000 and more as a loop, which
# needs less memory at a time; where it stays in the process, all are faster grouped.
_LARGE = 150_000

_WHY_LOOP = (
    "on a CPU that fetches memory anew for every step, for examples as large as these, an ordinary convolution of each "
    "beats one with groups for all of them (see dynaconv.kernels.cpu.keep_freed_memory)"
)
