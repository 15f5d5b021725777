"""What got slower: two sets of figures, as tools/benchmarks.py writes them, beside each other. Nothing is run here.

Only ratios to the static twin are compared: both sides of a ratio ran in turns on one machine, so it outlives a change
of the machine where milliseconds do not. A case is slower only where the quartile ranges do not overlap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Figures = Mapping[str, Mapping[str, Any]]  # name of the case -> its record

SLOWER, FASTER, WITHIN = "slower", "faster", "within the spread"
NEW, OTHERWISE, TOO_FEW = "new", "measured otherwise before", "too few rounds to tell"
# How precisely, not what, is measured.
_NOT_COMPARED = ("rounds", "warmup", "memory")
_FEWEST_ROUNDS = 4  # of fewer, the quartiles are hardly a spread
_MACHINE = ("processor", "torch", "gpu")


@dataclass(frozen=True)
class Change:
    """One case; ``before`` and ``percent`` are None where there is nothing to compare with."""

    name: str
    before: float | None
    now: float
    percent: float | None
    verdict: str

    def __str__(self) -> str:
        if self.before is None or self.percent is None:
            return f"{self.name:<52}{'-':>7} -> {self.now:>5.2f}{'':>9}  {self.verdict}"
        return f"{self.name:<52}{self.before:>7.2f} -> {self.now:>5.2f}{self.percent:>+8.1f}%  {self.verdict}"


def changes(before: Figures, now: Figures) -> list[Change]:
    """Every case of ``now`` against the one of the same name; the larger the ratio to static, the slower."""
    return [_change(name, before.get(name), record) for name, record in now.items()]


def other_machines(before: Figures, now: Figures) -> list[str]:
    """How the machine differs, one sentence per difference; empty where it is of the same kind."""
    found = []
    for name, record in now.items():
        if name not in before:
            continue
        old, new = before[name]["environment"], record["environment"]
        found += [f"{fact}: {old.get(fact)} -> {new.get(fact)}" for fact in _MACHINE if old.get(fact) != new.get(fact)]
    return list(dict.fromkeys(found))


def _change(name: str, before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> Change:
    ratio = now["ratio_to_static"]
    if before is None:
        return Change(name, None, ratio, None, NEW)
    if _what_was_measured(before) != _what_was_measured(now):
        return Change(name, None, ratio, None, OTHERWISE)
    old = before["ratio_to_static"]
    return Change(name, old, ratio, 100 * (ratio / old - 1), _verdict(before, now))


def _what_was_measured(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record["settings"].items() if name not in _NOT_COMPARED}


def _verdict(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    if min(before["settings"]["rounds"], now["settings"]["rounds"]) < _FEWEST_ROUNDS:
        return TOO_FEW
    old_low, old_high = before["ratio_to_static_quartiles"]
    low, high = now["ratio_to_static_quartiles"]
    if low > old_high:
        return SLOWER
    return FASTER if high < old_low else WITHIN
