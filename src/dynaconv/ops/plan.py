"""The choice of the strategy for a call, with the reasons for it and against the others."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from dynaconv.errors import suggest
from dynaconv.kernels import cpu as kernels
from dynaconv.notebook import html_table
from dynaconv.ops import measured
from dynaconv.ops.call import Call
from dynaconv.ops.geometry import output_space
from dynaconv.ops.strategies import STRATEGIES

CHOICES = ("auto", "reference", *STRATEGIES)


@dataclass(frozen=True)
class Plan:
    """The chosen strategy of a call, the reason for it, and for every other strategy the reason against it."""

    strategy: str
    why: str
    others: dict[str, str]

    def __str__(self) -> str:
        lines = [f"{self.strategy}: {self.why}"]
        return "\n".join(lines + [f"  not {name}: {reason}" for name, reason in self.others.items()])

    def _repr_html_(self) -> str:
        """The strategies with their reasons, for notebooks."""
        rows = [(self.strategy, "runs", self.why), *((name, "not", reason) for name, reason in self.others.items())]
        return html_table(("strategy", "", "why"), rows)


def check_choice(strategy: str) -> None:
    """Raise ValueError unless ``strategy`` is ``"auto"``, ``"reference"`` or the name of a strategy."""
    if not isinstance(strategy, str) or strategy not in CHOICES:
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
    """The strategy that the rules choose; used for calls that :func:`dynaconv.tune` has not measured."""
    rules = (
        list(_rules(call)) if call.compiling else _rules(call)
    )  # torch.compile cannot trace a generator left halfway
    return next(rule.strategy for rule in rules if rule.pays and not STRATEGIES[rule.strategy].refusal(call))


def plan(call: Call, strategy: str = "auto") -> Plan:
    """As :func:`choose`, with the reasons."""
    chosen = choose(call, strategy)
    rules = list(_rules(call))
    why = {rule.strategy: rule.why for rule in reversed(rules) if rule.pays}  # the first that pays gives the reason
    why_not = {name: one.unasked for name, one in STRATEGIES.items()}
    why_not |= {rule.strategy: rule.why_not for rule in rules if not rule.pays and rule.strategy not in why}
    if strategy == "auto":
        for name, milliseconds in measured_times(call).items():
            why[name] = why_not[name] = f"measured here: {milliseconds:.2f} ms"
    others = {
        name: candidate.refusal(call) or f"possible, but {why_not[name]}"
        for name, candidate in STRATEGIES.items()
        if name != chosen
    }
    return Plan(chosen, "you asked for it" if strategy != "auto" else why[chosen], others)


class Rule(NamedTuple):
    """One line of the rules: a strategy, whether it pays for this call, and a sentence for either case."""

    strategy: str
    pays: bool
    why: str
    why_not: str = "slower here"


def _rules(call: Call) -> Iterator[Rule]:
    """The rules in the order of preference: the first whose strategy pays and can run the call decides.

    One after the other, as they are asked for: every call of every layer asks.
    """
    if call.exporting:
        yield from _rules_of_export(call)
        return
    if call.batch == 1:
        yield _one_product(call)
        yield Rule("single", True, "one example needs one ordinary convolution")
    yield _stencil(call)
    yield _experts(call)
    yield _branches(call)
    yield _tiled(call)
    yield Rule("matmul", True, "a 1x1 kernel or a linear layer is one batched matrix product")
    yield from _rules_of_torch(call)


def _rules_of_export(call: Call) -> tuple[Rule, ...]:
    if call.as_operator and call.geometry.dims:
        return (Rule("operator", True, "an exporter asked for one operator a layer, which it writes in its own way"),)
    if call.depthwise and not call.pointwise and call.operation == "mix":
        return (Rule("branches", True, "a depthwise layer exports with a free batch as K cheap convolutions"),)
    return (
        Rule("matmul", True, "a 1x1 kernel is one matrix product, and the batch stays free"),
        Rule("unfold", True, "only a product over patches keeps the batch free"),
    )


def _one_product(call: Call) -> Rule:
    """torch's convolution of one image in channels_last by a 1x1 kernel is slower than the product that it is."""
    pays = call.device == "cpu" and call.channels_last and call.pointwise and call.geometry.groups == 1
    return Rule("matmul", pays, "a 1x1 kernel over one image in channels_last is one matrix product")


def _stencil(call: Call) -> Rule:
    """For channels_last maps only. Contiguous maps use ``grouped``, which needs no copy of them: converting them to
    channels_last and back would cost more than the convolution."""
    return Rule(
        "stencil",
        call.channels_last,
        "a depthwise layer in channels_last is one pass over the maps, with a kernel of our own",
        "the input is contiguous, and to convert it costs more than the convolution; keep maps in channels_last",
    )


def _experts(call: Call) -> Rule:
    """Mixing costs K multiply-adds per weight, using a kernel one per position that reads inside the map.

    With ``n`` such positions the choice is between ``K + n`` and, with every expert and no mixing, ``K n``. The second
    is one large matrix product, and so are its gradients. Measured on a CPU (docs/performance.md, step 23), it is
    faster as long as ``K n <= 2.5 (K + n)``, from 4 examples on, for all but the smallest kernels.
    """
    if call.device != "cpu" or call.batch < 4 or math.prod(call.bank_shape[1:]) < 1000:
        return Rule("experts", False, "", "packing the experts is not repaid by so few examples, or so small a kernel")
    uses = _uses(call)
    pays = uses <= 8 and call.experts * uses <= 2.5 * (call.experts + uses)
    # torch.compile may not know the size
    number = "few" if call.compiling else f"{uses:.2g}" if uses < 10 else f"{uses:.0f}"
    used = f"a weight is used at {number} positions of an example"
    return Rule(
        "experts",
        pays,
        f"{used}: all experts there cost less than mixing a kernel" + _converted(call),
        f"{used}: mixing a kernel costs less than using all experts there",
    )


def _branches(call: Call) -> Rule:
    """Where ``experts`` has no kernel, its sum by torch's operations.

    Measured on a CPU (docs/performance.md, step 20): linear layers and convolutions with 1x1 output, forward and
    backward, run 1.1 to 6 times as fast as with any other of torch's forms, if the batch has at least two examples per
    expert and the kernel is not small.
    """
    kernel = math.prod(call.bank_shape[1:])
    enough = call.batch >= max(8, 2 * call.experts) and kernel >= 20_000
    return Rule(
        "branches",
        call.device == "cpu" and call.geometry.groups == 1 and enough and _positions(call) == 1,
        "the kernel is used at one position only: using every expert there costs no more than mixing them",
    )


def _tiled(call: Call) -> Rule:
    """The rule is :func:`dynaconv.kernels.cpu.pays`; for 1x1 kernels contiguous maps must be small too.

    Contiguous maps are converted to channels_last and the output back (docs/performance.md, step 20).
    """
    why = "large kernels are mixed into the cache block by block, never written" + _converted(call)
    why_not = _packing_is_not_repaid(call)
    if why_not is None and call.pointwise and not call.channels_last and _positions(call) > 400:
        why_not = "the maps are contiguous and large; keep them in channels_last"
    return Rule("tiled", why_not is None, why, why_not or "")


def _packing_is_not_repaid(call: Call) -> str | None:
    if call.device != "cpu" or kernels.why_not() is not None:
        return "it has no kernel here"
    numbers = math.prod(call.bank_shape[1:])
    return kernels.pays("dense", batch=call.batch, pointwise=call.pointwise, numbers=numbers, training=call.needs_grad)


def _converted(call: Call) -> str:
    return "" if call.channels_last else "; the maps are converted to channels_last and back"


def _positions(call: Call) -> int:
    """How often one example uses its kernel: the pixels of the output, or the rows of a linear layer."""
    if not call.geometry.dims:
        return math.prod(call.x_shape[1:-1])
    return math.prod(output_space(call.x_shape[2:], call.kernel, call.geometry))


def _uses(call: Call) -> float:
    """How often one example uses a weight, on average over the taps: uses that read padding are left out."""
    if call.geometry.transposed or not call.geometry.dims:
        return _positions(call)
    geometry, uses = call.geometry, 1.0
    moves = zip(geometry.stride, geometry.padding, geometry.dilation, strict=True)
    for length, taps, (stride, padding, dilation) in zip(call.x_shape[2:], call.kernel, moves, strict=True):
        uses *= uses_of_axis(length, taps, stride, padding, dilation)
    return uses


def uses_of_axis(length: int, taps: int, stride: int, padding: int, dilation: int) -> float:
    """Along one axis: how many outputs read inside the map through a tap, on average over the taps."""
    outputs = (length + 2 * padding - dilation * (taps - 1) - 1) // stride + 1
    inside = 0
    for tap in range(taps):
        start = tap * dilation - padding  # where output 0 reads; output i reads at start + i * stride
        first, last = max(0, -(start // stride)), min(outputs - 1, (length - 1 - start) // stride)
        inside += max(0, last - first + 1)
    return inside / taps


def _rules_of_torch(call: Call) -> tuple[Rule, ...]:
    """Convolutions of several taps by torch's operations: all examples in one convolution, or one after the other."""
    grouped = Rule("grouped", True, "one convolution serves the whole batch")
    large = math.prod(call.x_shape[1:]) >= _LARGE
    if call.device != "cpu" or call.compiling:
        return (grouped,)
    if call.operation == "convolve_each" and call.channels_last and not call.needs_grad:
        return (Rule("loop", True, "a convolution of each example keeps the map in channels_last"), grouped)
    if not large:
        return (grouped,)
    if call.keeps_memory:
        return (grouped._replace(why=f"{grouped.why}, {_KEPT}"),)
    return (Rule("loop", True, _WHY_LOOP), grouped)


# Numbers in one example. Measured on a CPU with 3x3 convolutions (docs/performance.md, steps 4 and 8). If freed memory
# is returned to the system, "grouped" is faster up to 75,000 numbers per example, and "loop", which needs less memory
# at a time, from 200,000 on. If the process keeps its memory, "grouped" is always faster.
_LARGE = 150_000

_KEPT = "and freed memory stays in this process (dynaconv.keep_freed_memory), so that its large blocks cost nothing"
_WHY_LOOP = (
    "on a CPU that fetches memory anew for every step, for examples as large as these, an ordinary convolution of each "
    "beats one with groups for all of them (see dynaconv.keep_freed_memory)"
)
