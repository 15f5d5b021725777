"""``dynaconv.tune``: time the strategies of every layer of a network once, and use the fastest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dynaconv.layers.base import DynamicLayer
from dynaconv.ops import STRATEGIES, Call, mix
from dynaconv.ops.geometry import resolve_padding
from dynaconv.ops.measured import Times, milliseconds, remember
from dynaconv.ops.plan import by_rule

# Not timed unless the rules choose them, for tuning would take long: "unfold" is for export, "experts" and "branches"
# are for kernels that are used at few positions.
_LEFT_OUT = ("unfold", "experts", "branches")


@dataclass(frozen=True)
class Tuned:
    """One layer: the strategy by rule, the fastest one, and the milliseconds of each that could run."""

    layer: str
    rule: str
    fastest: str
    times: Times

    def __str__(self) -> str:
        times = ", ".join(f"{name} {spent:.2f}" for name, spent in sorted(self.times.items(), key=lambda pair: pair[1]))
        return f"{self.layer}: {self.fastest} ({times} ms; by rule {self.rule})"


def tune(model: nn.Module, x: Tensor, *, rounds: int = 5) -> list[Tuned]:
    """In every dynamic layer, time every strategy that can run, on the input that the layer gets in ``model(x)``.

    From then on, in this process, a layer whose ``strategy`` is ``"auto"`` uses the fastest one for exactly these
    shapes, this layout, dtype and device. Other calls use the rules of :mod:`dynaconv.ops.plan` as before. The times
    are kept in a file in the user's cache folder (one for every processor, version of torch and number of threads), so
    a second call reads the file and measures nothing. Strategies are equal up to rounding, so tuning can change the
    last digits.

    Args:
        model: any network; run once on ``x``, in the mode that it is in. A network in training mode, or with
            parameters that need gradients while gradients are enabled, is timed forward and backward.
        x: a batch as it will be used: shape, layout, dtype, device.
        rounds: how often each strategy runs; the median counts.

    Returns:
        One :class:`Tuned` for every call of a layer, in the order in which they ran.

    Raises:
        TypeError: ``model`` is no module.
        ValueError: no dynamic layer ran.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is {type(model).__name__}; expected a torch.nn.Module")
    sites: list[_Site] = []
    with _watched(model, sites):
        model(x)
    if not sites:
        raise ValueError("no dynamic layer ran; expected a network with dynamic layers, such as dynamize(model)")
    return [_tuned(site, rounds) for site in sites]


class _Site(NamedTuple):
    """One call of a layer. Holds the shape and layout of the input but no values: the inputs of all layers together
    could fill the memory."""

    name: str
    layer: DynamicLayer
    blank: Tensor
    needs_grad: bool


@contextmanager
def _watched(model: nn.Module, sites: list[_Site]) -> Iterator[None]:
    def see(name: str, layer: Any, args: tuple[Any, ...]) -> None:
        sites.append(_Site(name, layer, torch.empty_like(args[0], device="meta"), args[0].requires_grad))

    handles = []
    for name, layer in model.named_modules():
        if isinstance(layer, DynamicLayer) and layer.strategy == "auto":
            handles.append(layer.register_forward_pre_hook(partial(see, name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tuned(site: _Site, rounds: int) -> Tuned:
    layer = site.layer
    bank, dims = layer.mixed_bank().detach().requires_grad_(layer.weight.requires_grad), layer.geometry.dims
    x = torch.randn_like(site.blank, device=bank.device)
    x = x.unsqueeze(0) if x.dim() == dims + 1 else x
    x, geometry = resolve_padding(x, tuple(bank.shape[-dims:]) if dims else (), layer.geometry)
    x.requires_grad_(site.needs_grad and torch.is_grad_enabled())
    routing = torch.full((x.shape[0], layer.experts), 1 / layer.experts, device=bank.device, dtype=bank.dtype)
    routing.requires_grad_(bank.requires_grad)
    call = Call.of(x, bank, routing, geometry)

    def run(strategy: str) -> None:
        y = mix(x, bank, routing, layer.bias, geometry=geometry, strategy=strategy)
        if call.needs_grad:
            wanted = [leaf for leaf in (x, bank, routing, layer.bias) if leaf is not None and leaf.requires_grad]
            torch.autograd.grad(y, wanted, torch.ones_like(y))

    rule = by_rule(call)
    worth = [name for name in STRATEGIES if name == rule or name not in _LEFT_OUT]
    able = [name for name in worth if STRATEGIES[name].refusal(call) is None]
    times = remember(call, able, lambda: milliseconds({name: partial(run, name) for name in able}, rounds))
    return Tuned(site.name, rule, min(times, key=times.__getitem__), times)
