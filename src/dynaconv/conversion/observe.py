"""Run a network once without numbers, to see which layers run, in which order, on inputs of which shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dynaconv.counting.dry_run import shadow_mode, shadow_model


@dataclass
class Observation:
    """For every module name the shapes of its first argument, one per call; None where that was no tensor."""

    calls: dict[str, list[tuple[int, ...] | None]] = field(default_factory=dict)

    def only_input(self, name: str) -> tuple[int, ...] | None:
        """The shape of the first argument of a module that runs once on one tensor, else None."""
        shapes = self.calls.get(name, [])
        return shapes[0] if len(shapes) == 1 else None


def observe(model: nn.Module, input_size: Sequence[int] | None) -> Observation | None:
    """Observe one forward of two examples; None if no input size is known or the network cannot be run that way.

    Args:
        input_size: ``(C, *space)`` of one example; None takes it from timm's ``pretrained_cfg``, else tries the
            usual sizes of an image.

    Raises:
        ValueError: ``input_size`` was given, and the network does not run on it.
    """
    if input_size is not None:
        try:
            return _run(model, tuple(input_size))
        except Exception as error:
            raise ValueError(f"the model does not run on input_size={tuple(input_size)}: {error}") from error
    for size in guess_sizes(model):
        try:
            return _run(model, size)
        except Exception:  # a wrong guess fails in whichever way the network likes; the caller then asks for the size
            continue
    return None


def guess_sizes(model: nn.Module) -> list[tuple[int, ...]]:
    """Sizes of one example that the network may take, the likeliest first."""
    config = getattr(model, "pretrained_cfg", None)
    known = config.get("input_size") if isinstance(config, dict) else getattr(config, "input_size", None)
    first = next((module for module in model.modules() if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d))), None)
    if first is None:
        return []
    channels = first.in_channels
    sizes = [(channels, *tuple(known)[1:])] if known else []
    usual = {nn.Conv1d: (1024,), nn.Conv2d: (224, 224), nn.Conv3d: (16, 112, 112)}
    sizes += [(channels, *space) for kind, space in usual.items() if isinstance(first, kind)]
    return [*sizes, (channels, *((64,) * (len(sizes[-1]) - 1)))]


def _run(model: nn.Module, input_size: tuple[int, ...]) -> Observation:
    mode = shadow_mode()
    shadow = shadow_model(model, mode)
    seen = Observation()
    for name, module in shadow.named_modules():
        module.register_forward_pre_hook(_Note(seen, name), with_kwargs=True)
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    with mode, torch.no_grad():
        shadow(torch.empty(2, *input_size, dtype=dtype, device="cpu"))
    return seen


class _Note:
    def __init__(self, seen: Observation, name: str) -> None:
        self.seen, self.name = seen, name

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = args[0] if args else next(iter(kwargs.values()), None)
        self.seen.calls.setdefault(self.name, []).append(tuple(x.shape) if isinstance(x, Tensor) else None)
