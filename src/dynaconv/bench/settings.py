"""The settings and the result of a measurement."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from dynaconv.errors import suggest
from dynaconv.timing import find_device

MODES = ("infer", "train")
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "processor": time.process_time}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """One measurement.

    Attributes:
        model: a network of the zoo (its static twin is known), or any other by a name as in
            :mod:`dynaconv.tasks.sources` (its dynamic twin is made).
        mode: ``"infer"`` (ours is frozen) or ``"train"`` (forward and backward).
        batch, threads, device, size: as they are; ``size`` None is the network's own, in pixels.
        dtype: anything below float32 runs under autocast, as networks are used.
        compile: also try every contender compiled.
        bank_dtype: of the frozen network, see :func:`dynaconv.freeze`.
        rounds: how often every contender runs; the first ``warmup`` do not count.
        clock: ``"wall"``, or ``"processor"``: the processor time of this process, for a machine that is shared with
            other processes (one thread only). It leaves out waiting, but not the effect of shared caches.
        model_args: arguments of the network.
        memory: measure peak memory too (in processes of their own).
        weights: a local file of its weights, or None.
    """

    model: str
    mode: str = "infer"
    batch: int = 1
    threads: int = 1
    device: str = "cpu"
    dtype: str = "float32"
    compile: bool = False
    bank_dtype: str | None = None
    size: int | None = None
    rounds: int = 20
    warmup: int = 3
    clock: str = "wall"
    model_args: dict[str, Any] = field(default_factory=dict)
    memory: bool = True
    weights: str | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode is {self.mode!r}. {suggest(self.mode, MODES)}")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype is {self.dtype!r}. {suggest(self.dtype, DTYPES)}")
        if self.clock not in CLOCKS:
            raise ValueError(f"clock is {self.clock!r}. {suggest(self.clock, CLOCKS)}")
        for name in ("batch", "threads", "rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        object.__setattr__(self, "device", str(find_device(self.device)))  # "auto" is what it found


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """Medians in milliseconds, and medians of the ratios within a round; None where there is nothing to measure."""

    model: str
    mode: str
    batch: int
    threads: int
    device: str
    dtype: str
    static_ms: float
    ours_ms: float
    usual_ms: float
    timm_ms: float | None
    ratio_to_static: float
    speedup_over_usual: float
    peak_memory_ratio: float | None
    environment: dict[str, Any]

    def plain(self) -> dict[str, Any]:
        """The keys of ``dynaconv bench --json``."""
        return asdict(self)
