"""Sweeps: one benchmark per value of one setting, to show how the cost grows."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

import dynaconv.models
from dynaconv.bench.run import bench
from dynaconv.bench.settings import BenchResult, BenchSettings
from dynaconv.errors import suggest

SWEEPS = ("experts", "batch", "width", "size", "threads")
_EXPERTS = (1, 2, 4, 8, 16, 32)
_BATCHES = tuple(2**power for power in range(9))
_SIZES = tuple(range(64, 289, 32))
_FAMILY = re.compile(r"(?P<family>.+)_(?P<percent>\d{3})")

HEADER = ("static", "ours", "usual", "timm", "ours/static (quartiles)", "memory")
WIDTHS = (8, 10, 10, 10, 10, 26, 9)  # of the value and these
LEGEND = "ms per image; memory: peak of ours over the static twin's"


@dataclass(frozen=True)
class Point:
    """The measurement at one value of the swept setting (width: in percent, as in the names of the networks)."""

    what: str
    value: int
    result: BenchResult

    def plain(self) -> dict[str, Any]:
        """The keys of ``dynaconv bench --json``, after the swept setting and its value."""
        return {"sweep": self.what, "value": self.value, **self.result.plain()}

    def cells(self) -> list[str]:
        """The value and the figures of :data:`HEADER`."""
        result = self.result
        each = (result.static_ms, result.ours_ms, result.usual_ms, result.timm_ms)
        times = ["-" if time is None else format(time / result.batch, ".2f") for time in each]
        low, high = result.environment["ratio_to_static_quartiles"]
        ratio = f"{result.ratio_to_static:.2f} ({low:.2f} to {high:.2f})"
        memory = "-" if result.peak_memory_ratio is None else f"{result.peak_memory_ratio:.2f}"
        return [str(self.value), *times, ratio, memory]


def plan_sweep(
    settings: BenchSettings, what: str, values: Sequence[int] | None = None
) -> list[tuple[int, BenchSettings]]:
    """Every value with its benchmark's settings, smallest first; nothing is measured yet.

    Args:
        settings: what stays. For ``"width"`` its model, such as ``dy_mobilenetv2_100``, names the family.
        what: ``"experts"``, ``"batch"``, ``"width"`` (percent), ``"size"`` (pixels) or ``"threads"``.
        values: None is 1 to 32 experts, 1 to 256 images, 64 to 288 pixels, 1 to all threads, every width of the zoo.

    Raises:
        ValueError: an unknown setting or an impossible value, a setting both given and swept, threads by the
            processor's clock, a family without other widths.
    """
    if what not in SWEEPS:
        raise ValueError(f"sweep is {what!r}. {suggest(what, SWEEPS)}")
    if what == "threads" and settings.clock == "processor":
        raise ValueError("the processor's clock adds up the time of all threads; sweep threads by the wall's")
    if what == "width":
        members = _widths(settings.model)
        return [(value, replace(settings, model=_member(members, value))) for value in _checked(what, values, members)]
    _refuse_given(settings, what)
    return [(value, _changed(settings, what, value)) for value in _checked(what, values, _defaults(what))]


def sweep(settings: BenchSettings, what: str, values: Sequence[int] | None = None) -> Iterator[Point]:
    """Run the benchmarks of :func:`plan_sweep`; each point comes as soon as it is measured.

    Raises:
        ValueError: as :func:`plan_sweep`, before anything is measured.
        RunError: outputs differ at a value; it has no point.
    """
    planned = plan_sweep(settings, what, values)
    return (_measure(what, value, each) for value, each in planned)


def _measure(what: str, value: int, settings: BenchSettings) -> Point:
    if settings.compile:
        torch.compiler.reset()  # the compiler gives up on code that it has compiled for several networks already
    return Point(what, value, bench(settings))


def _changed(settings: BenchSettings, what: str, value: int) -> BenchSettings:
    if what == "experts":
        return replace(settings, model_args={**settings.model_args, "experts": value})
    change: dict[str, Any] = {what: value}
    return replace(settings, **change)


def _defaults(what: str) -> tuple[int, ...]:
    cores = os.cpu_count() or 1
    threads = tuple(2**power for power in range(cores.bit_length()))
    return {"experts": _EXPERTS, "batch": _BATCHES, "size": _SIZES, "threads": threads}[what]


def _checked(what: str, values: Sequence[int] | None, default: Iterable[int]) -> list[int]:
    if values is None:
        return sorted(default)
    if not values or min(values) < 1 or len(set(values)) < len(values):
        raise ValueError(f"values of {what} are {list(values)}; expected different whole numbers of at least 1")
    return sorted(values)


def _refuse_given(settings: BenchSettings, what: str) -> None:
    """Raise an error for a setting that is both given and swept: the given value would be ignored."""
    if what == "experts":
        given, usual = settings.model_args.get(what), None
    else:
        given, usual = getattr(settings, what), getattr(BenchSettings(model=settings.model), what)
    if given != usual:
        raise ValueError(f"{what} is {given} and swept too; leave one of them out (the values choose what is swept)")


def _widths(model: str) -> dict[int, str]:
    """Percent -> the zoo's network of that width, in the family of ``model`` (a member's name, or the family's)."""
    families: dict[str, dict[int, str]] = {}
    for name in dynaconv.models.ZOO:
        if match := _FAMILY.fullmatch(name):
            families.setdefault(match["family"], {})[int(match["percent"])] = name
    match = _FAMILY.fullmatch(model)
    family = match["family"] if match else model
    if family not in families:
        raise ValueError(f"{model!r} has no other widths in the zoo. {suggest(family, families)}")
    return families[family]


def _member(members: dict[int, str], value: int) -> str:
    if value not in members:
        known = ", ".join(map(str, members))
        raise ValueError(f"there is no width of {value} percent in this family; expected some of {known}")
    return members[value]
