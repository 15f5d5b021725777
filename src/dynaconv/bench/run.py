"""``bench``: check that all contenders compute the same, then time them in turns."""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dynaconv.bench.contenders import Contender, check_equal, contenders, make_input, make_step
from dynaconv.bench.memory import peak_memory
from dynaconv.bench.settings import CLOCKS, BenchResult, BenchSettings
from dynaconv.timing import environment, interleave, quartiles, ratios


def bench(settings: BenchSettings) -> BenchResult:
    """Time a network against its static twin at its best, the usual form, and timm's CondConv where there is one.

    Raises:
        ValueError: an impossible setting.
        RunError: outputs differ; then nothing is timed.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        return _bench(settings)
    finally:
        torch.set_num_threads(threads)


def _check(everyone: list[Contender], settings: BenchSettings, x: Tensor) -> float:
    """The largest difference of outputs; batch norm over a small batch turns half-precision roundings into noise of the
    size of the outputs, so training steps are compared in float32 (and strategies in low precision by the tests)."""
    checked = replace(settings, dtype="float32") if settings.mode == "train" else settings
    steps = [make_step(contender, checked, x) for contender in everyone]
    pairs = list(zip(everyone, steps, strict=True))
    return check_equal(pairs, settings.mode, checked.dtype, settings.bank_dtype)


def _bench(settings: BenchSettings) -> BenchResult:
    x = make_input(settings)
    everyone = contenders(settings, x)
    steps = [make_step(contender, settings, x) for contender in everyone]
    error = _check(everyone, settings, x)
    times = interleave(
        steps,
        rounds=settings.rounds,
        warmup=settings.warmup,
        device=settings.device,
        clock=CLOCKS[settings.clock],
    )
    best = _best_of_each_role(everyone, times)
    static, ours, usual = (best[role][1] for role in ("static", "ours", "usual"))
    against_static = ratios(ours, static)
    peaks = _peaks(settings) if settings.memory else None
    facts: dict[str, Any] = {
        **environment(),
        "size": x.shape[-1],
        "model_args": settings.model_args,
        "bank_dtype": settings.bank_dtype,
        "rounds": settings.rounds,
        "clock": settings.clock,
        "forms": {role: contender.form for role, (contender, _) in best.items()},
        "milliseconds": {
            f"{each.role}: {each.form}": round(statistics.median(own), 3)
            for each, own in zip(everyone, times, strict=True)
        },
        "milliseconds_quartiles": {role: _quartiles(own) for role, (_, own) in best.items()},
        "ratio_to_static_quartiles": _quartiles(against_static),
        "peak_memory_mib": {role: round(peak / 2**20, 1) for role, peak in peaks.items()} if peaks else None,
        "largest_relative_error": error,
    }
    return BenchResult(
        model=settings.model,
        mode=settings.mode,
        batch=settings.batch,
        threads=settings.threads,
        device=settings.device,
        dtype=settings.dtype,
        static_ms=statistics.median(static),
        ours_ms=statistics.median(ours),
        usual_ms=statistics.median(usual),
        timm_ms=statistics.median(best["timm"][1]) if "timm" in best else None,
        ratio_to_static=statistics.median(against_static),
        speedup_over_usual=statistics.median(ratios(usual, ours)),
        peak_memory_ratio=peaks["ours"] / peaks["static"] if peaks else None,
        environment=facts,
    )


def _best_of_each_role(everyone: list[Contender], times: list[list[float]]) -> dict[str, tuple[Contender, list[float]]]:
    best: dict[str, tuple[Contender, list[float]]] = {}
    for contender, own in zip(everyone, times, strict=True):
        known = best.get(contender.role)
        if known is None or statistics.median(own) < statistics.median(known[1]):
            best[contender.role] = (contender, own)
    return best


def _quartiles(values: list[float]) -> list[float]:
    return [round(value, 3) for value in quartiles(values)]


def _peaks(settings: BenchSettings) -> dict[str, int] | None:
    """Peak bytes of ours and of the static twin; None where the system does not tell."""
    ours, static = peak_memory(settings, "ours"), peak_memory(settings, "static")
    return None if ours is None or static is None else {"ours": ours, "static": static}
