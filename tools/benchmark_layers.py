"""Measure single layers on small maps beside their bound: the rows "small maps" of docs/performance.md.

Mixing a kernel costs ``K / (H W)`` of a convolution, and every expert over the whole batch costs K convolutions. So
``min(1 + K / (H W), K)`` times the ordinary layer is the bound of what a dynamic one costs, as long as products with
padding are counted; leaving them out may cost less.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dynaconv.ops import Geometry, mix, plan_of
from dynaconv.ops.reference import reference
from dynaconv.timing import interleave, quartiles

TARGET = 1.5  # times the bound
LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


@dataclass(frozen=True)
class LayerCase:
    """A convolution of ``channels`` to ``channels`` with padding, over square maps."""

    channels: int
    kernel: int
    side: int
    batch: int
    experts: int = 4

    @property
    def name(self) -> str:
        kernel = f"{self.kernel}x{self.kernel}"
        return f"{kernel}, {self.channels}, {self.side}x{self.side} maps, batch {self.batch}, K {self.experts}"

    @property
    def bound(self) -> float:
        return min(1 + self.experts / self.side**2, float(self.experts))


QUICK_LAYERS = [LayerCase(512, 3, 2, 64), LayerCase(256, 3, 4, 64), LayerCase(512, 1, 1, 64)]
LAYERS = [
    *(LayerCase(channels, 3, side, 64) for channels in (64, 128, 256, 512) for side in (1, 2, 4, 8)),
    *(LayerCase(256, 3, side, batch) for batch in (16, 128) for side in (1, 2, 4, 8)),
    *(LayerCase(channels, 1, side, 64) for channels in (128, 512) for side in (1, 2, 4, 8)),
    *(LayerCase(256, 3, side, 64, experts=8) for side in (1, 2, 4)),
]


def measure_layer(case: LayerCase, rounds: int = 7, seconds: float = 2.0) -> dict[str, Any]:
    """Milliseconds and ratios of one layer, forward and in training (forward and all gradients), strategies by plan.

    ``ratio`` is to the ordinary layer in the layout in which that is faster, in the same round; ``of_contiguous`` is
    the dynamic layer's time in contiguous layout by its time in channels_last.

    Raises:
        RuntimeError: the layer's output is not the reference's, so its time means nothing.
    """
    torch.manual_seed(0)
    tensors = _tensors(case)
    _check(case, tensors)
    call = _call(case, tensors, torch.channels_last)
    found: dict[str, Any] = {"case": asdict(case), "bound": round(case.bound, 3), "strategy": call.strategy}
    for mode in ("infer", "train"):
        runs = [_static(case, tensors, layout, mode) for layout in LAYOUTS.values()]
        runs += [_dynamic(case, tensors, layout, mode) for layout in LAYOUTS.values()]
        times = interleave(runs, rounds=rounds, warmup=1, fewest=3, device="cpu", seconds=seconds)
        last, first, ours, contiguous = (list(each) for each in times)
        static = last if statistics.median(last) <= statistics.median(first) else first
        ratios = [a / b for a, b in zip(ours, static, strict=True)]
        found[mode] = {
            "static_ms": round(statistics.median(static), 3),
            "ours_ms": round(statistics.median(ours), 3),
            "ratio": round(statistics.median(ratios), 3),
            "quartiles": [round(value, 3) for value in quartiles(ratios)],
            "of_contiguous": round(statistics.median(a / b for a, b in zip(contiguous, ours, strict=True)), 3),
        }
    return found


def line(name: str, found: dict[str, Any]) -> str:
    """One layer for people."""
    limit = TARGET * found["bound"]
    parts = [
        f"{mode} {found[mode]['ratio']:.2f}{' (above the target)' if found[mode]['ratio'] > limit else ''}"
        for mode in ("infer", "train")
    ]
    return f"{name}: {found['strategy']}, times static: {', '.join(parts)}; bound {found['bound']:.2f}"


def _tensors(case: LayerCase) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Input, bank, routing weights and an upstream gradient."""
    shape = (case.batch, case.channels, case.side, case.side)
    kernel = (case.channels, case.channels, case.kernel, case.kernel)
    bank = torch.randn(case.experts, *kernel) / (case.channels * case.kernel**2) ** 0.5
    return torch.randn(shape), bank, torch.rand(case.batch, case.experts).softmax(1), torch.randn(shape)


def _geometry(case: LayerCase) -> Geometry:
    return Geometry(dims=2, padding=case.kernel // 2)


def _check(case: LayerCase, tensors: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    x, bank, routing, _ = (tensor[:4] if index in (0, 2) else tensor for index, tensor in enumerate(tensors))
    y = mix(tensors[0], bank, tensors[2], geometry=_geometry(case))[:4]
    expected = reference(x.double(), bank.double(), routing.double(), None, _geometry(case))
    error = (y.double() - expected).abs().max().item()
    if not error <= 1e-4:
        raise RuntimeError(f"{case.name}: the output differs from the reference by {error:.1e}; no time was taken")


def _call(case: LayerCase, tensors: tuple[Tensor, Tensor, Tensor, Tensor], layout: torch.memory_format) -> Any:
    x, bank, routing, _ = tensors
    own = x.contiguous(memory_format=layout)
    return plan_of(own, bank.requires_grad_(), routing, geometry=_geometry(case))


def _dynamic(case: LayerCase, tensors: Any, layout: torch.memory_format, mode: str) -> Callable[[], None]:
    x, bank, routing, upstream = _leaves(tensors, layout)
    return _run(lambda: mix(x, bank, routing, geometry=_geometry(case)), (x, bank, routing), upstream, mode)


def _static(case: LayerCase, tensors: Any, layout: torch.memory_format, mode: str) -> Callable[[], None]:
    x, bank, _, upstream = _leaves(tensors, layout)
    weight = bank[0].detach().contiguous(memory_format=layout).requires_grad_()
    return _run(lambda: F.conv2d(x, weight, padding=case.kernel // 2), (x, weight), upstream, mode)


def _leaves(tensors: Any, layout: torch.memory_format) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, bank, routing, upstream = (tensor.detach() for tensor in tensors)
    own = x.clone(memory_format=layout).requires_grad_()
    return own, bank.requires_grad_(), routing.requires_grad_(), upstream.contiguous(memory_format=layout)


def _run(forward: Callable[[], Tensor], leaves: Any, upstream: Tensor, mode: str) -> Callable[[], None]:
    def run() -> None:
        with torch.set_grad_enabled(mode == "train"):
            y = forward()
            if mode == "train":
                torch.autograd.grad(y, leaves, upstream)

    return run
