"""Which strategy runs a call, why, and why not the others."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dynaconv.errors import suggest
from dynaconv.ops import measured
from dynaconv.ops.call import Call
from dynaconv.ops.strategies import STRATEGIES

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
        reason = None if strategy == "reference" else STRATEGIES[strategy].refusal(call)
        if reason is not None:
            raise ValueError(f"strategy {strategy!r} cannot run this call: {reason}; choose 'auto' or another one")
        return strategy
    times = measured_times(call)
    return min(times, key=times.__getitem__) if times else by_rule(call)


def measured_times(call: Call) -> measured.Times:
    """Milliseconds of the strategies that were timed for this call and can run it now; empty where none was."""
    times = measured.times_of(call)
    return {name: spent for name, spent in times.items() if name in STRATEGIES and not STRATEGIES[name].refusal(call)}


def by_rule(call: Call) -> str:
    """The strategy that is taken where nothing was measured (:func:`dynaconv.tune`)."""
    return next(name for name, _ in _preferences(call) if STRATEGIES[name].refusal(call) is None)


def plan(call: Call, strategy: str = "auto") -> Plan:
    """As :func:`choose`, with the reasons."""
    chosen = choose(call, strategy)
    reasons = {name: one.unasked for name, one in STRATEGIES.items()} | dict(_preferences(call))
    if strategy == "auto":
        times = measured_times(call)
        reasons |= {name: f"measured here: {milliseconds:.2f} ms" for name, milliseconds in times.items()}
    others = {
        name: candidate.refusal(call) or f"possible, but {reasons[name]}"
        for name, candidate in STRATEGIES.items()
        if name != chosen
    }
    return Plan(chosen, "you asked for it" if strategy != "auto" else reasons[chosen], others)


def _preferences(call: Call) -> tuple[tuple[str, str], ...]:
    """Strategies in the order of preference, each with the reason that stands when it is the first that can run."""
    if call.exporting:
        if call.depthwise and not call.pointwise and call.operation == "mix":
            return (("branches", "a depthwise layer exports with a free batch as K cheap convolutions"),)
        return (
            ("matmul", "a 1x1 kernel is one matrix product, and the batch stays free"),
            ("unfold", "only a product over patches keeps the batch free"),
        )
    stencil = ("stencil", "a depthwise layer in channels_last is one pass over the maps, with a kernel of our own")
    single = ("single", "one example needs one ordinary convolution")
    product = ("matmul", "a 1x1 kernel or a linear layer is one batched matrix product")
    tiled = (("tiled", "large kernels are mixed into the cache block by block, never written"),) * _tiles_pay(call)
    return (single, stencil, *tiled, product, *_dense(call))


def _dense(call: Call) -> tuple[tuple[str, str], ...]:
    """What is left for convolutions of several taps: all examples at once, or one after the other."""
    large = math.prod(call.x_shape[1:]) >= _LARGE
    if call.device != "cpu" or call.compiling or not large:
        return (("grouped", "one convolution serves the whole batch"),)
    if call.keeps_memory:
        return (("grouped", f"one convolution serves the whole batch, {_KEPT}"),)
    return (("loop", _WHY_LOOP), ("grouped", "one convolution serves the whole batch"))


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

_KEPT = "and freed memory stays in this process (dynaconv.keep_freed_memory), so that its large blocks cost nothing"
_WHY_LOOP = (
    "on a CPU that fetches memory anew for every step, for examples as large as these, an ordinary convolution of each "
    "beats one with groups for all of them (see dynaconv.keep_freed_memory)"
)
