"""The Triton kernels as operators of torch: ``dynaconv::triton_mix`` and its gradients, for 2d maps.

The first derivative is a kernel. Second derivatives (``create_graph=True``) and batched gradients are computed by
torch's operations (:mod:`dynaconv.kernels.by_torch`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from dynaconv.kernels import by_torch
from dynaconv.kernels.cuda.shape import Move, addressable, channels_last
from dynaconv.torch_private import is_wrapped

_MOVE = "int[] stride, int[] padding, int[] dilation, int groups"
_INPUTS = f"Tensor x, Tensor bank, Tensor routing, Tensor? bias, {_MOVE}"
_GRADIENTS_SCHEMA = f"(Tensor gradient, {_INPUTS}, bool[] needed) -> (Tensor, Tensor, Tensor, Tensor)"


def triton_mix(
    x: Tensor,
    bank: Tensor,
    routing: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """``(B, C, H, W), (K, N, C/groups, kh, kw), (B, K), (K, N) -> (B, N, H', W')``, in the memory format of ``x``.

    ``groups`` is 1, or C with N = C (depthwise). Differentiable by the four tensors.
    """
    y: Tensor = _triton_mix(x, bank, routing, bias, stride, padding, dilation, groups)
    return y


@torch.library.custom_op("dynaconv::triton_mix", mutates_args=(), schema=f"({_INPUTS}) -> Tensor")
def _triton_mix(x, bank, routing, bias, stride, padding, dilation, groups):  # type: ignore[no-untyped-def]
    move = Move(stride, padding, dilation)
    y, x = _output(x, bank, move), addressable(x)
    with _on_device(x):
        _kernels(groups).forward(x, _laid_out(bank, groups), routing, bias, y, move).run()
    return y


@_triton_mix.register_fake
def _(x, bank, routing, bias, stride, padding, dilation, groups):  # type: ignore[no-untyped-def]
    return _output(x, bank, Move(stride, padding, dilation))


@torch.library.custom_op("dynaconv::triton_mix_gradients", mutates_args=(), schema=_GRADIENTS_SCHEMA)
def _gradients(gradient, x, bank, routing, bias, stride, padding, dilation, groups, needed):  # type: ignore[no-untyped-def]
    need_x, need_bank, need_routing, need_bias = needed
    move, laid_out = Move(stride, padding, dilation), _laid_out(bank, groups)
    found = _empty_gradients(x, bank, routing, bias, needed)
    x, gradient = addressable(x), addressable(gradient)
    with _on_device(x), torch.autocast(x.device.type, enabled=False):
        if need_x:
            _kernels(groups).input_gradient(gradient, laid_out, routing, found[0], move).run()
        if need_bank or need_routing:
            launch, of_bank, of_routing = _kernels(groups).bank_gradient(
                gradient, x, laid_out, routing, move, need_bank, need_routing
            )
            launch.run()
            if need_bank:
                found[1].copy_(_total(of_bank).permute(0, 3, 4, 1, 2))
        if bias is not None and (need_bias or need_routing):
            sums = gradient.sum(dim=(2, 3), dtype=torch.float32)
            if need_bias:
                found[3].copy_(routing.float().t() @ sums)
        if need_routing:
            total = _total(of_routing)
            found[2].copy_(total if bias is None else total + sums @ bias.float().t())
    return found


@_gradients.register_fake
def _(gradient, x, bank, routing, bias, stride, padding, dilation, groups, needed):  # type: ignore[no-untyped-def]
    return _empty_gradients(x, bank, routing, bias, needed)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, bank, routing, bias, *ctx.moves = inputs
    ctx.save_for_backward(x, bank, routing, bias)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    inputs, needed = ctx.saved_tensors, list(ctx.needs_input_grad[:4])
    found: Sequence[Tensor | None]
    if torch.is_grad_enabled() or is_wrapped(gradient):
        found = by_torch.gradients(partial(_by_torch, ctx.moves), inputs, needed, gradient)
    else:
        found = _gradients(gradient, *inputs, *ctx.moves, needed)
    return (*(value if need else None for value, need in zip(found, needed, strict=True)), *(None,) * 4)


_triton_mix.register_autograd(_backward, setup_context=_setup)


def _by_torch(moves: Sequence[Any], *inputs: Tensor | None) -> Tensor:
    return by_torch.mix_conv2d(*inputs, *moves)  # type: ignore[arg-type]


def _kernels(groups: int) -> ModuleType:
    """The module with the kernels. It is imported here and not at the top, because it imports triton."""
    return import_module("dynaconv.kernels.cuda.dense" if groups == 1 else "dynaconv.kernels.cuda.depthwise")


def _on_device(x: Tensor) -> AbstractContextManager[Any]:
    """Make the device of ``x`` the current one: Triton launches on the current device."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def _laid_out(bank: Tensor, groups: int) -> Tensor:
    """The bank with the input channels as contiguous dimension: a copy for dense kernels of more than one tap.

    Depthwise kernels have one input channel, and 1x1 kernels have this layout already.
    """
    if groups == 1 and bank.shape[3] * bank.shape[4] > 1:
        return bank.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2)
    return bank.contiguous()


def _output(x: Tensor, bank: Tensor, move: Move) -> Tensor:
    size = by_torch.output_size(x.shape[2:], bank.shape[3:], move.stride, move.padding, move.dilation)
    return _empty((x.shape[0], bank.shape[1], *size), x)


def _empty(shape: Sequence[int], like: Tensor) -> Tensor:
    """An empty tensor of this shape with the dtype, the device and the memory format of ``like``."""
    memory = torch.channels_last if channels_last(like) else torch.contiguous_format
    return torch.empty(tuple(shape), dtype=like.dtype, device=like.device, memory_format=memory)


def _empty_gradients(
    x: Tensor, bank: Tensor, routing: Tensor, bias: Tensor | None, needed: Sequence[bool]
) -> tuple[Tensor, ...]:
    """Uninitialised tensors for the four gradients; of size 0 where a gradient is not needed."""
    empty = [_empty(x.shape, x) if needed[0] else x.new_empty(0)]
    for value, need in zip((bank, routing, bias), needed[1:], strict=True):
        empty.append(value.new_empty(value.shape) if need and value is not None else x.new_empty(0))
    return tuple(empty)


def _total(parts: Tensor) -> Tensor:
    return parts[0] if parts.shape[0] == 1 else parts.sum(dim=0)
