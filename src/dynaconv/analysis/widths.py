"""Honest controls: the width at which a static network costs as much as another network."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dynaconv.errors import UserError
from dynaconv.tasks.network import ModelSpec
from dynaconv.timing import clock_of, interleave, ratios

WIDEST = 16.0  # times the width that is widened
HALVINGS = 24
STEPS = 13  # widths that are timed beside the target, to nearly three times the width
PER_STEP = 2 ** (1 / 8)
TOLERANCE = 0.02  # of the time, for the noise of measuring
ROUNDS = 15
FEWEST = 5
MOST_SECONDS = 20.0


@dataclass(frozen=True)
class Width:
    """A widened network.

    Attributes:
        width_multiplier: of the network.
        ratio: its cost divided by the target's: of parameters, or the median of the paired times.
    """

    width_multiplier: float
    ratio: float


def width_of(spec: ModelSpec) -> float:
    """The width multiplier of a network as it is described."""
    from dynaconv.models import ZOO

    named = ZOO[spec.name].width if spec.name in ZOO else 1.0
    return float(spec.args.get("width_multiplier", named))


def at_width(spec: ModelSpec, width: float) -> ModelSpec:
    """The same network with another width multiplier."""
    return spec.model_copy(update={"args": {**spec.args, "width_multiplier": width}})


def width_for_parameters(build: Callable[[float], nn.Module], base: float, target: int) -> Width:
    """The width at which a network has as many parameters as ``target``, as nearly as its channels allow.

    Args:
        build: makes the network of a width multiplier.
        base: the width from which it is widened.
        target: parameters.

    Raises:
        UserError: the target is out of reach.
    """

    def parameters(width: float) -> int:
        return sum(parameter.numel() for parameter in build(width).parameters())

    low, high = base, base * WIDEST
    if parameters(low) > target or parameters(high) < target:
        raise UserError(f"no width from {low:g} to {high:g} has {target:,} parameters")
    for _ in range(HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if parameters(middle) < target else (low, middle)
    best = min((low, high), key=lambda width: abs(parameters(width) - target))
    rounded = next(width for digits in range(1, 17) if parameters(width := round(best, digits)) == parameters(best))
    return Width(rounded, parameters(rounded) / target)


def width_for_time(build: Callable[[float], nn.Module], base: float, target: nn.Module, images: Tensor) -> Width:
    """The widest network through which a batch takes no longer than through the target.

    The target and networks of rising width run in turns. Nothing is interpolated: the time is no smooth function of
    the width, and 15 channels may take longer than 16.

    Args:
        build: makes the network of a width multiplier.
        base: the width from which it is widened; also the result where all wider ones take longer.
        target: the network whose time is to be reached.
        images: the batch.

    Raises:
        UserError: the widest network that is tried is quicker than the target.
    """
    lowest = base
    while lowest < base * WIDEST:
        networks = _different(build, [round(lowest * PER_STEP**step, 3) for step in range(STEPS)])
        found = dict(zip(networks, _ratios(target, list(networks.values()), images), strict=True))
        width = max((width for width, ratio in found.items() if ratio <= 1 + TOLERANCE), default=min(found))
        if width != max(found):
            return Width(width, found[width])
        lowest = width
    raise UserError(f"a network of width {width:g} still takes {found[width]:.2f} of the other one's time")


def _different(build: Callable[[float], nn.Module], widths: Sequence[float]) -> dict[float, nn.Module]:
    """The networks of some widths, without those that have as many channels as a narrower one."""
    networks: dict[float, nn.Module] = {}
    seen = set()
    for width in widths:
        network = build(width)
        size = sum(parameter.numel() for parameter in network.parameters())
        if size not in seen:
            networks[width] = network
            seen.add(size)
    return networks


def _ratios(target: nn.Module, networks: Sequence[nn.Module], images: Tensor) -> list[float]:
    """Median over rounds of every network's time divided by the target's in the same round."""
    passes: list[Callable[[], Any]] = [_forward(network, images) for network in (target, *networks)]
    times = interleave(
        passes,
        rounds=ROUNDS,
        warmup=2,
        device=images.device,
        clock=clock_of(images.device),
        seconds=MOST_SECONDS,
        fewest=FEWEST,
    )
    return [statistics.median(ratios(own, times[0])) for own in times[1:]]


def _forward(network: nn.Module, images: Tensor) -> Callable[[], Any]:
    network.eval().to(images.device)

    def run() -> None:
        with torch.inference_mode():
            network(images)

    return run
