"""Timing side by side, and on which machine: one timer for tuning, benchmarks and comparisons.

Everything is timed in turns (A B C A B C ...), so that disturbances affect all contenders equally. Ratios are taken
within one round, and the result is the median of the ratios.
"""

from __future__ import annotations

import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

CPU = torch.device("cpu")


def interleave(
    actions: Sequence[Callable[[], object]],
    *,
    rounds: int,
    warmup: int = 1,
    device: str | torch.device = "cpu",
    clock: Callable[[], float] = time.perf_counter,
    seconds: float = math.inf,
    fewest: int = 5,
) -> list[list[float]]:
    """Time actions in turns.

    Args:
        actions: what to time; each is called once in every round.
        rounds: how many rounds count.
        warmup: rounds before those that count.
        device: where they run; it is synchronised before and after each action.
        clock: in seconds; ``time.process_time`` leaves out what other processes do (one thread only).
        seconds: after this long no further round begins, if ``fewest`` were counted.
        fewest: see ``seconds``.

    Returns:
        Milliseconds, ``[action][round]``.
    """
    times: list[list[float]] = [[] for _ in actions]
    for _ in range(warmup):
        for action in actions:
            action()
    began = time.monotonic()
    for count in range(rounds):
        if count >= fewest and time.monotonic() - began > seconds:
            break
        for action, own in zip(actions, times, strict=True):
            synchronize(device)
            start = clock()
            action()
            synchronize(device)
            own.append(1000 * (clock() - start))
    return times


def clock_of(device: str | torch.device) -> Callable[[], float]:
    """The clock for a computation: on a processor with one thread it leaves out the time of other processes."""
    alone = torch.device(device).type == "cpu" and torch.get_num_threads() == 1
    return time.process_time if alone else time.perf_counter


def synchronize(device: str | torch.device) -> None:
    """Wait until a device has done what it was given; nothing to wait for on the CPU."""
    device = torch.device(device)
    if device.type not in ("cpu", "meta"):
        torch.get_device_module(device).synchronize(device)


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Return the ratio within every round."""
    return [one / other for one, other in zip(above, below, strict=True)]


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """Return the first and the third quartile; of one value, that value twice."""
    if len(values) < 2:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def find_device(word: str) -> torch.device:
    """Return the device that a word means, if it is here.

    Args:
        word: ``auto`` (the accelerator that torch finds, or else the processor), ``cpu``, ``cuda``, ``cuda:1``
            or ``mps``.

    Raises:
        ValueError: another word, or a device that this machine (or this torch) does not have.
    """
    if word == "auto":
        return (torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None) or CPU
    kind, colon, index = word.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (colon and (kind != "cuda" or not index.isdecimal())):
        raise ValueError(f"device is {word!r}; expected auto, cpu, cuda, cuda:1 (the second GPU) or mps")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device is {word!r}, and torch finds no CUDA device here; choose cpu or auto")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device is {word!r}, and torch finds no Apple GPU here; choose cpu or auto")
    if colon and int(index) >= torch.cuda.device_count():
        raise ValueError(f"device is {word!r}, and the last GPU here is cuda:{torch.cuda.device_count() - 1}")
    return torch.device(word)


def processor_name() -> str:
    """Return the processor's name as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def device_name(device: str | torch.device) -> str:
    """Return the name of a GPU, or of the processor for the device ``cpu``."""
    device = torch.device(device)
    if device.type == "cpu":
        return processor_name()
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def environment() -> dict[str, Any]:
    """Return processor, cores, load, versions: what a reader needs to judge a figure."""
    facts: dict[str, Any] = {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts
