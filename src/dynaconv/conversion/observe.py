"""Run a network once, and record which layers run, in which order and on which shapes, and which weights are read
outside their layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dynaconv.counting.dry_run import (
    called,
    device_of,
    float_type,
    has_numbers,
    real_inputs,
    real_model,
    shadow_inputs,
    shadow_mode,
    shadow_model,
)

Key = int | str
"""An argument of a call: its position, or its keyword."""


@dataclass
class Observation:
    """What one forward pass did.

    Attributes:
        calls: for every module name, in the order in which they ran first, the shapes of the tensors among its
            arguments, one dictionary per call.
        reads: for every module name, its parameters that were read while the module itself was not running.
    """

    calls: dict[str, list[dict[Key, tuple[int, ...]]]] = field(default_factory=dict)
    reads: dict[str, set[str]] = field(default_factory=dict)


def observe(model: nn.Module, input_size: Sequence[int] | None, inputs: Any = None) -> Observation | None:
    """Observe one forward of two examples; None if no input is known or the network cannot be run that way.

    The network runs on meta tensors. If it needs values (a buffer's value becomes a shape), it runs on real numbers.

    Args:
        input_size: ``(C, *space)`` of one example; None takes it from timm's ``pretrained_cfg``, else tries the
            usual sizes of an image.
        inputs: instead of ``input_size``, as in :func:`dynaconv.cost`.

    Raises:
        ValueError: an input was given, and the network does not run on it.
    """
    dtype = float_type(model)
    if inputs is not None:
        try:
            return _run(model, inputs)
        except Exception as error:
            raise ValueError(f"the model does not run on the inputs given: {type(error).__name__}: {error}") from error
    if input_size is not None:
        try:
            return _run(model, torch.empty(2, *input_size, dtype=dtype, device="meta"))
        except Exception as error:
            raise ValueError(f"the model does not run on input_size={tuple(input_size)}: {error}") from error
    for size in guess_sizes(model):
        try:
            return _run(model, torch.empty(2, *size, dtype=dtype, device="meta"))
        except Exception:  # a wrong guess can raise any error; the caller then asks the user for the size
            continue
    return None


def guess_sizes(model: nn.Module) -> list[tuple[int, ...]]:
    """Sizes of one example that the network may take, the likeliest first."""
    config = getattr(model, "pretrained_cfg", None)
    known = config.get("input_size") if isinstance(config, dict) else getattr(config, "input_size", None)
    found: dict[bool, tuple[int, type[nn.Module]]] = {}  # by whether it is transposed: channels and kind of the first
    module: Any  # the convolutions have no common base that knows in_channels
    for module in model.modules():
        kind = next((kind for kind in _USUAL if isinstance(module, kind)), None)
        if kind is not None:
            found.setdefault(module.transposed, (module.in_channels, kind))
    sizes = [(channels, *space) for channels, kind in found.values() for space in _USUAL[kind]]
    return [(sizes[0][0], *tuple(known)[1:]), *sizes] if known and sizes else sizes


# By the convolution that a network begins with: the usual size of an example without its channels, and a small one.
# A network that begins with a transposed one makes pictures of a code, mostly of one position.
_USUAL: dict[type[nn.Module], tuple[tuple[int, ...], tuple[int, ...]]] = {
    nn.Conv1d: ((1024,), (64,)),
    nn.Conv2d: ((224, 224), (64, 64)),
    nn.Conv3d: ((16, 112, 112), (64, 64, 64)),
    nn.ConvTranspose1d: ((1,), (8,)),
    nn.ConvTranspose2d: ((1, 1), (8, 8)),
    nn.ConvTranspose3d: ((1, 1, 1), (4, 4, 4)),
}


def _run(model: nn.Module, inputs: Any) -> Observation:
    mode = shadow_mode()
    shadow = shadow_model(model, mode)
    try:
        return _watch(shadow, shadow_inputs(inputs, mode), mode)
    except Exception:
        if not has_numbers(model):
            raise
        # Perhaps it needs real numbers. If it fails again, that error is the one that a user of the network would see.
        copied = real_model(model)
        with torch.random.fork_rng(devices=[]):
            return _watch(copied, real_inputs(inputs, device_of(copied), seed=0), torch.no_grad())


def _watch(copied: nn.Module, given: Any, mode: AbstractContextManager[Any]) -> Observation:
    seen = Observation()
    running: list[nn.Module] = []
    for name, module in copied.named_modules():
        module.register_forward_pre_hook(_Note(seen, name, running), prepend=True, with_kwargs=True)
        module.register_forward_hook(lambda module, *_: running.remove(module), always_call=True)
    with mode, torch.no_grad(), _Reads(copied, seen, running):
        called(copied, given)
    return seen


class _Note:
    """Forward pre-hook: record one call."""

    def __init__(self, seen: Observation, name: str, running: list[nn.Module]) -> None:
        self.seen, self.name, self.running = seen, name, running

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.running.append(module)
        given: list[tuple[Key, Any]] = [*enumerate(args), *kwargs.items()]
        shapes = {key: tuple(value.shape) for key, value in given if isinstance(value, Tensor)}
        self.seen.calls.setdefault(self.name, []).append(shapes)


# Attributes that do not depend on the shape or the values of a parameter: reading them from a bank is harmless.
_HARMLESS = {
    getattr(Tensor, name).__get__
    for name in ("dtype", "device", "layout", "requires_grad", "is_cuda", "is_meta", "is_quantized", "is_sparse")
} | {Tensor.is_floating_point, torch.is_floating_point, Tensor.is_complex, Tensor.new_zeros, Tensor.new_ones}
_HARMLESS |= {Tensor.new_empty, Tensor.new_full, Tensor.new_tensor}

# Functions that use only the dtype and the device of their second tensor.
_LIKE_SECOND = {Tensor.to, Tensor.type_as}


class _Reads(TorchFunctionMode):
    """Notices every parameter that is an argument of a torch function while its module is not running."""

    def __init__(self, model: nn.Module, seen: Observation, running: list[nn.Module]) -> None:
        super().__init__()
        self.seen, self.running = seen, running
        self.owners: dict[int, list[tuple[nn.Module, str, str]]] = {}
        for name, module in model.named_modules():
            for part, parameter in module.named_parameters(recurse=False):
                self.owners.setdefault(id(parameter), []).append((module, name, part))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in _HARMLESS:
            for tensor in _tensors((args[:1] if func in _LIKE_SECOND else args, kwargs)):
                for owner, name, part in self.owners.get(id(tensor), ()):
                    if not any(owner is module for module in self.running):
                        self.seen.reads.setdefault(name, set()).add(part)
        return func(*args, **kwargs)


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values.values() if isinstance(values, dict) else values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list, dict)):
            yield from _tensors(value)
