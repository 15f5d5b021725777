"""Interleaved timing: A B C A B C ..., so that what disturbs the machine disturbs all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch


def interleave(
    steps: Sequence[Callable[[], Any]],
    rounds: int,
    warmup: int,
    device: str = "cpu",
    clock: Callable[[], float] = time.perf_counter,
) -> list[list[float]]:
    """Milliseconds of every step in every round, the rounds of the warm-up left out."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else _nothing
    times: list[list[float]] = [[] for _ in steps]
    for index in range(warmup + rounds):
        for step, own in zip(steps, times, strict=True):
            wait()
            start = clock()
            step()
            wait()
            if index >= warmup:
                own.append(1000 * (clock() - start))
    return times


def _nothing() -> None:
    pass


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """The ratio within every round."""
    return [one / other for one, other in zip(above, below, strict=True)]


def spread(values: Sequence[float]) -> tuple[float, float]:
    """First and third quartile."""
    if len(values) < 2:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third
