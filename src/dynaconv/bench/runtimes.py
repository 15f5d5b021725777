"""``bench(runtime=...)``: exported networks in the runtime that a deployer would take, beside the static twin in it."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dynaconv.bench.contenders import build, make_input
from dynaconv.bench.settings import CLOCKS, BenchSettings
from dynaconv.errors import RunError, UserError, suggest
from dynaconv.export import export, load
from dynaconv.inference import freeze
from dynaconv.timing import environment, interleave, quartiles, ratios

RUNTIMES = ("onnx", "openvino", "aoti")
LARGEST_ERROR = 1e-3


@dataclass(frozen=True, kw_only=True)
class RuntimeResult:
    """Medians of milliseconds, and of the ratios to the static twin within a round.

    Attributes:
        bank_dtype: of our networks, None for float32; the static twin's kernels are float32.
        milliseconds: by form; the first is the static twin that the ratios refer to.
        ratio_to_static, quartiles: of every other form.
        errors: the largest difference from the network in PyTorch with the same banks, relative to the largest output.
        left: forms that the network or the processor does not have, and why.
    """

    model: str
    runtime: str
    batch: int
    threads: int
    size: int
    milliseconds: dict[str, float]
    ratio_to_static: dict[str, float]
    quartiles: dict[str, tuple[float, float]]
    errors: dict[str, float]
    left: dict[str, str]
    environment: dict[str, Any]
    bank_dtype: str | None = None

    def plain(self) -> dict[str, Any]:
        """The keys of ``dynaconv bench --runtime ... --json``."""
        return asdict(self)


def bench_runtime(settings: BenchSettings, runtime: str) -> RuntimeResult:
    """Time the exported network, with a free batch and with a fixed one, and the frozen one in PyTorch.

    The static twin runs in the same runtime. That of AOTInductor is ONNX Runtime's too, the fastest one: the first.

    Raises:
        UserError: the network cannot be exported, or the runtime is not installed.
        RunError: outputs differ; then nothing is timed.
        ValueError: a setting that belongs to measurements in PyTorch.
    """
    if runtime not in RUNTIMES:
        raise ValueError(f"runtime is {runtime!r}. {suggest(runtime, RUNTIMES)}")
    if settings.mode != "infer" or settings.device != "cpu" or settings.dtype != "float32" or settings.compile:
        raise ValueError(f"runtime {runtime!r} is for inference in float32 on the processor, without compile")
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        with tempfile.TemporaryDirectory(prefix="dynaconv-bench-") as folder:
            return _bench(settings, runtime, Path(folder))
    finally:
        torch.set_num_threads(threads)


def _bench(settings: BenchSettings, runtime: str, folder: Path) -> RuntimeResult:
    x = make_input(settings)
    static, ours = (build(settings, static=kind).eval() for kind in (True, False))
    frozen = freeze(ours, examples=x[:2], bank_dtype=settings.bank_dtype)
    reference = ours if settings.bank_dtype is None else frozen
    steps: dict[str, Callable[[], Tensor]] = {}
    errors: dict[str, float] = {}
    left: dict[str, str] = {}

    def enter(name: str, step: Callable[[], Tensor], network: nn.Module) -> None:
        with torch.no_grad():
            expected = network(x)
        error = ((step() - expected).abs().max() / expected.abs().max()).item()
        if not error <= LARGEST_ERROR:
            raise RunError(f"{name} computes something else: it differs by {error:.1e}. Nothing was timed.")
        steps[name], errors[name] = step, error

    def exported(network: nn.Module, kind: str, **options: Any) -> Callable[[], Tensor]:
        suffix = ".pt2" if kind == "aoti" else ".onnx"
        path = folder / f"{len(steps)}{suffix}"
        options["bank_dtype"] = settings.bank_dtype if network is ours else None
        export(network, path, to="aoti" if kind == "aoti" else "onnx", image_size=x.shape[-1], **options)
        loaded = load(path, runtime=kind, threads=None if kind == "aoti" else settings.threads)
        return lambda: loaded.run(x)["logits"]

    base = "onnx" if runtime == "aoti" else runtime
    enter(f"static, {base}", exported(static, base, batch=settings.batch), static)
    if runtime == "aoti":
        enter("static, aoti", exported(static, "aoti", batch=settings.batch), static)
        enter("ours, aoti", exported(ours, "aoti", batch=settings.batch), reference)
    else:
        enter(f"ours, {runtime}, any batch", exported(ours, runtime), reference)
        enter(f"ours, {runtime}, any batch, products", exported(ours, runtime, form="products"), reference)
        enter(f"ours, {runtime}, batch {settings.batch}", exported(ours, runtime, batch=settings.batch), reference)
    for batch in ((None, 1) if settings.batch == 1 else (None,)) if runtime == "onnx" else ():
        name = f"ours, onnx, {'any batch' if batch is None else 'batch 1'}, blocked"
        try:
            enter(name, exported(ours, "onnx", batch=batch, form="blocked"), reference)
        except UserError as error:  # no such layout here, or no layer that it is for
            left[name] = str(error)
    channels_last = x.to(memory_format=torch.channels_last)

    def in_torch() -> Tensor:
        with torch.no_grad():
            y: Tensor = frozen(channels_last)
        return y

    enter("ours, frozen in PyTorch", in_torch, reference)
    times = dict(
        zip(
            steps,
            interleave(
                list(steps.values()), rounds=settings.rounds, warmup=settings.warmup, clock=CLOCKS[settings.clock]
            ),
            strict=True,
        )
    )
    first, *others = times
    against = {name: ratios(times[name], times[first]) for name in others}
    return RuntimeResult(
        model=settings.model,
        runtime=runtime,
        batch=settings.batch,
        threads=settings.threads,
        size=x.shape[-1],
        milliseconds={name: statistics.median(own) for name, own in times.items()},
        ratio_to_static={name: statistics.median(own) for name, own in against.items()},
        quartiles={name: quartiles(own) for name, own in against.items()},
        errors=errors,
        left=left,
        bank_dtype=settings.bank_dtype,
        environment={**environment(), "rounds": settings.rounds, "clock": settings.clock},
    )
