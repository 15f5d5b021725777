"""Times of the strategies on this machine. They are kept in a file, and the plan uses them."""

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

from dynaconv.files import read_json, sealed, unsealed
from dynaconv.kernels.cpu import cache_folder
from dynaconv.ops.call import Call
from dynaconv.timing import interleave, processor_name

Times = dict[str, float]

FORMAT = 3  # version of the file; to be raised when the meaning of a strategy's name changes

# Milliseconds of every strategy, by call: what `tune` has measured, or read from the file, in this process.
_known: dict[Call, Times] = {}


def times_of(call: Call) -> Times:
    """Milliseconds by strategy of exactly this call; empty where it was not measured."""
    return {} if call.compiling or not _known else _known.get(call, {})


def forget() -> None:
    """Forget all times in this process, so that the rules decide again; the file is kept."""
    _known.clear()


def remember(call: Call, strategies: Collection[str], measure: Callable[[], Times]) -> Times:
    """The times of ``call`` for exactly these strategies: from this process, from the file, or measured now."""
    if set(_known.get(call, ())) != set(strategies):
        stored = _read()
        key = _key(call)
        if set(stored.get(key, ())) != set(strategies):  # the set of strategies that can run has changed
            stored[key] = measure()
            _write(stored)
        _known[call] = stored[key]
    return _known[call]


def milliseconds(runs: dict[str, Callable[[], Any]], rounds: int) -> Times:
    """Median time of each run over several rounds; in a round every run is called once. One round warms up."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    times = interleave(list(runs.values()), rounds=rounds, fewest=rounds, device=device)
    return {name: round(statistics.median(each), 4) for name, each in zip(runs, times, strict=True)}


def cache_file() -> Path:
    """One file for every processor or GPU, version of torch and number of threads."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    facts = [platform.machine(), processor_name(), device, torch.__version__, str(torch.get_num_threads())]
    return cache_folder() / f"strategies-{hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}.json"


def _key(call: Call) -> str:
    return repr(call)


def _read() -> dict[str, Times]:
    """The times in the file; empty if there is no file, it is damaged, or another version wrote it."""
    try:
        stored = unsealed(read_json(cache_file()))
    except (OSError, ValueError):
        return {}
    if not isinstance(stored, dict) or stored.get("format") != FORMAT or not isinstance(stored.get("times"), dict):
        return {}
    return {key: times for key, times in stored["times"].items() if _are_times(times)}


def _are_times(times: Any) -> bool:
    return isinstance(times, dict) and all(isinstance(spent, (int, float)) and spent > 0 for spent in times.values())


def _write(times: dict[str, Times]) -> None:
    """Write the file atomically. If that fails, the next process measures again."""
    strategies = sorted({name for each in times.values() for name in each})
    with contextlib.suppress(OSError):  # also if the user has no home folder
        path = cache_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
            json.dump(sealed({"format": FORMAT, "strategies": strategies, "times": times}), file, indent=1)
        os.replace(file.name, path)
