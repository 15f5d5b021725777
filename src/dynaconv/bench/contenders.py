"""The networks that are compared (ours, the static twin in every form, the usual form, timm's), their steps,
and the check that they compute the same."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

import dynaconv.models
from dynaconv.bench.settings import BenchSettings
from dynaconv.conversion import dynamize
from dynaconv.errors import RunError, UserError
from dynaconv.inference import freeze
from dynaconv.layers import DynamicLayer
from dynaconv.models.timm_weights import to_timm
from dynaconv.tasks.sources import make_network
from dynaconv.tasks.weights import load_weights_into

# Relative to the largest output, by mode; a wrong kernel is off by about 1. In training, batch norm over a small batch
# amplifies roundings, and low precision cannot be told from noise: such steps are compared in float32.
_BOUNDS = {
    "infer": {"float32": 1e-3, "bfloat16": 0.3, "float16": 0.1},
    "train": {"float32": 2e-2},
}


@dataclass(frozen=True)
class Contender:
    """A network in one form; ``role`` is ``static``, ``ours``, ``usual`` or ``timm``."""

    role: str
    form: str
    network: nn.Module
    layout: torch.memory_format


def build(settings: BenchSettings, *, static: bool) -> nn.Module:
    """The dynamic network or its static twin from a fixed seed, with batch statistics like those after training."""
    torch.manual_seed(0)
    if settings.model in dynaconv.models.ZOO:
        twin: dict[str, Any] = {"static": True} if static else {}
        network = timm.create_model(settings.model, **twin, **settings.model_args)
    else:
        own = {name: value for name, value in settings.model_args.items() if name in ("method", "experts")}
        other = {name: value for name, value in settings.model_args.items() if name not in own}
        network = make_network(settings.model, {}, other)
        if any(isinstance(module, DynamicLayer) for module in network.modules()):
            raise UserError(
                f"{settings.model} is dynamic already, and its static twin is not known; expected the static network, "
                "or one of this package's"
            )
        network = network if static else dynamize(network, **own)
    if settings.weights is not None:
        load_weights_into(network, Path(settings.weights))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            assert module.running_var is not None
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.to(settings.device)


def contenders(settings: BenchSettings, x: Tensor, roles: tuple[str, ...] = ()) -> list[Contender]:
    """Every form of every network; ``roles`` picks some, and nothing is built for the others."""
    made: list[Contender] = []
    builders = {"static": _static, "ours": _ours, "usual": _usual, "timm": _timm}
    networks: dict[bool, nn.Module] = {}
    for role, forms in builders.items():
        if not roles or role in roles:
            static = role == "static"
            if static not in networks:
                networks[static] = build(settings, static=static)
            made += forms(settings, networks[static], x)
    return made


def _static(settings: BenchSettings, network: nn.Module, x: Tensor) -> list[Contender]:
    if settings.mode == "train":
        forms = [
            ("eager", copy.deepcopy(network), torch.contiguous_format),
            ("channels_last", _channels_last(network), torch.channels_last),
        ]
        if settings.compile:
            forms.append(("compiled", _compiled(_channels_last(network)), torch.channels_last))
    else:
        forms = [
            ("eager", copy.deepcopy(network).eval(), torch.contiguous_format),
            ("channels_last", _channels_last(network).eval(), torch.channels_last),
            ("folded channels_last", freeze(network, examples=x[:2]), torch.channels_last),
        ]
        if settings.compile:
            forms.append(("compiled frozen", freeze(network, examples=x[:2], compile=True), torch.channels_last))
    return [Contender("static", *form) for form in forms]


def _ours(settings: BenchSettings, network: nn.Module, x: Tensor) -> list[Contender]:
    if settings.mode == "train":
        forms = [
            ("eager", copy.deepcopy(network), torch.contiguous_format),
            ("channels_last", _channels_last(network), torch.channels_last),
        ]
        if settings.compile:
            forms.append(("compiled", _compiled(_channels_last(network)), torch.channels_last))
    else:
        frozen = partial(freeze, network, bank_dtype=settings.bank_dtype, examples=x[:8])
        forms = [("frozen", frozen(), torch.channels_last)]
        if settings.compile:
            forms.append(("compiled frozen", frozen(compile=True), torch.channels_last))
    return [Contender("ours", *form) for form in forms]


def _usual(settings: BenchSettings, network: nn.Module, x: Tensor) -> list[Contender]:
    """The usual implementation: mix every kernel, then one convolution with groups = batch."""
    made = copy.deepcopy(network).train(settings.mode == "train")
    for module in made.modules():
        if isinstance(module, DynamicLayer) and module.geometry.dims:
            module.strategy = "grouped"
    return [Contender("usual", "groups = batch", made, torch.contiguous_format)]


def _timm(settings: BenchSettings, network: nn.Module, x: Tensor) -> list[Contender]:
    try:
        made = to_timm(network)
    except ValueError:  # timm has no such network
        return []
    return [Contender("timm", "CondConv2d", made.train(settings.mode == "train"), torch.contiguous_format)]


def _channels_last(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).to(memory_format=torch.channels_last)


def _compiled(network: nn.Module) -> nn.Module:
    network.compile(dynamic=False)
    return network


def make_input(settings: BenchSettings) -> Tensor:
    """Random images; the same for every contender."""
    generator = torch.Generator().manual_seed(0)
    size = settings.size or 224
    channels = int(settings.model_args.get("in_chans", 3))
    return torch.randn(settings.batch, channels, size, size, generator=generator).to(settings.device)


def make_step(contender: Contender, settings: BenchSettings, x: Tensor) -> Callable[[], Tensor]:
    """One inference, or one forward and backward; return the outputs."""
    network, inputs = contender.network, x.to(memory_format=contender.layout)
    low = settings.dtype != "float32"
    device = torch.device(settings.device).type
    autocast = torch.autocast(device, getattr(torch, settings.dtype) if low else None, enabled=low)

    def infer() -> Tensor:
        with torch.no_grad(), autocast:
            y: Tensor = network(inputs)
        return y

    def train() -> Tensor:
        network.zero_grad(set_to_none=True)
        with autocast:
            y: Tensor = network(inputs)
        y.float().square().mean().backward()
        return y.detach()

    return train if settings.mode == "train" else infer


def check_equal(
    entries: Sequence[tuple[Contender, Callable[[], Tensor]]], mode: str, dtype: str, bank_dtype: str | None
) -> float:
    """Run each once from one seed; return the largest difference, relative to the largest output.

    The static forms are compared with each other, ours and timm's with the usual form.

    Raises:
        RunError: outputs differ by more than rounding. (The error of a reduced bank is only reported.)
    """
    bound = _BOUNDS[mode][dtype]
    outputs: dict[str, Tensor] = {}
    worst = 0.0
    for contender, step in sorted(entries, key=lambda entry: entry[0].role != "usual"):
        torch.manual_seed(1)  # dropout draws the same masks
        y = step().double()
        kind = "static" if contender.role == "static" else "dynamic"
        expected = outputs.setdefault(kind, y)
        error = ((y - expected).abs().max() / expected.abs().max()).item()
        reduced = bank_dtype is not None and contender.role == "ours"
        if not reduced and not error <= bound:
            raise RunError(
                f"{contender.role} ({contender.form}) computes something else: it differs by {error:.1e} of the "
                f"largest output, more than rounding in {dtype} ({bound:.0e}). Nothing was timed."
            )
        worst = max(worst, error)
    return worst
