"""Strategies timed on this machine: what was measured is kept in a file, and the plan follows it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import statistics
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch

from dynaconv.kernels.cpu import cache_folder
from dynaconv.ops.call import Call
from dynaconv.timing import interleave, processor_name

Times = dict[str, float]

FORMAT = 2  # of the file; raised whenever the same name would mean another computation

# Milliseconds of every strategy, by call: what `tune` has measured, or read from the file, in this process.
_known: dict[Call, Times] = {}


def times_of(call: Call) -> Times:
    """Milliseconds by strategy of exactly this call; empty where it was not measured."""
    return {} if call.compiling else _known.get(call, {})


def forget() -> None:
    """Go back to the rules in this process; the file stays."""
    _known.clear()


def remember(call: Call, strategies: Collection[str], measure: Callable[[], Times]) -> Times:
    """The times of ``call`` for exactly these strategies: known, or read from the file, or measured now and written."""
    if set(_known.get(call, ())) != set(strategies):
        stored = _read()
        key = _key(call)
        if set(stored.get(key, ())) != set(strategies):  # a strategy came, went, or can run now and could not then
            stored[key] = measure()
            _write(stored)
        _known[call] = stored[key]
    return _known[call]


def milliseconds(runs: dict[str, Callable[[], Any]], rounds: int) -> Times:
    """Medians of several rounds, all runs in turns, after one round that does not count."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    times = interleave(list(runs.values()), rounds=rounds, fewest=rounds, device=device)
    return {name: round(statistics.median(own), 4) for name, own in zip(runs, times, strict=True)}


def cache_file() -> Path:
    """One file for every processor or GPU, version of torch and number of threads."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    facts = [platform.machine(), processor_name(), device, torch.__version__, str(torch.get_num_threads())]
    return cache_folder() / f"strategies-{hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}.json"


def _key(call: Call) -> str:
    return repr(call)


def _read() -> dict[str, Times]:
    """What the file holds; nothing where there is none, it is damaged, or an older version wrote it."""
    try:
        stored = json.loads(cache_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(stored, dict) or stored.get("format") != FORMAT or not isinstance(stored.get("times"), dict):
        return {}
    return {key: times for key, times in stored["times"].items() if _are_times(times)}


def _are_times(times: Any) -> bool:
    return isinstance(times, dict) and all(isinstance(spent, (int, float)) and spent > 0 for spent in times.values())


def _write(times: dict[str, Times]) -> None:
    """Whole or not at all; a folder that cannot be written costs only the next measurement."""
    strategies = sorted({name for own in times.values() for name in own})
    with contextlib.suppress(OSError):  # also where there is no home folder
        path = cache_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
            json.dump({"format": FORMAT, "strategies": strategies, "times": times}, file, indent=1)
        os.replace(file.name, path)
