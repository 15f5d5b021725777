"""The C kernels as operators of torch: ``dynaconv::depthwise_each``, and ``dynaconv::mix_conv2d`` and
``dynaconv::experts_conv2d`` (one operation, computed in two ways), with their gradients.

Because they are registered, torch.compile (which keeps them as calls), torch.export, the profiler and autograd's modes
see them. All take float32 maps on a CPU and compute in channels_last. An input in another layout is converted, and the
output and the gradient of the input come back contiguous. The
first derivative is a kernel. Second derivatives and batched gradients (``is_grads_batched``) are computed by torch's
operations (:mod:`dynaconv.kernels.by_torch`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dynaconv.kernels import by_torch
from dynaconv.kernels.cpu import convolve, depthwise, experts
from dynaconv.torch_private import is_wrapped

_MOVES = "int[2] stride, int[2] padding, int[2] dilation"
_LIBRARY = torch.library.Library("dynaconv", "FRAGMENT")
# torch.compile may change layouts inside its own code, but must call these operators with the strides that it traced.
_TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides)

Sizes = Sequence[int]


def depthwise_each(
    x: Tensor, kernels: Tensor, biases: Tensor | None, stride: Sizes, padding: Sizes, dilation: Sizes
) -> Tensor:
    """Depthwise convolution of every image with its own kernels.

    ``(B, C, H, W), (B, C, 1, kh, kw), (B, C) or None -> (B, C, H', W')``; float32.
    """
    y: Tensor = torch.ops.dynaconv.depthwise_each.default(x, kernels, biases, stride, padding, dilation)
    return y


def mix_conv2d(
    x: Tensor, bank: Tensor, routing: Tensor, biases: Tensor | None, stride: Sizes, padding: Sizes, dilation: Sizes
) -> Tensor:
    """Dense convolution of every image with its own mixture ``sum_k routing[b, k] * bank[k]``, which is never written.

    ``(B, in, H, W), (K, out, in, kh, kw), (B, K), (B, out) or None -> (B, out, H', W')``; float32.
    """
    y: Tensor = torch.ops.dynaconv.mix_conv2d.default(x, bank, routing, biases, stride, padding, dilation)
    return y


def experts_conv2d(
    x: Tensor, bank: Tensor, routing: Tensor, biases: Tensor | None, stride: Sizes, padding: Sizes, dilation: Sizes
) -> Tensor:
    """As :func:`mix_conv2d`, by every expert over the whole batch: for maps of few pixels."""
    y: Tensor = torch.ops.dynaconv.experts_conv2d.default(x, bank, routing, biases, stride, padding, dilation)
    return y


_channels_last = convolve.in_channels_last


def _like(x: Tensor, y: Tensor) -> Tensor:
    """A map in channels_last, the output or the gradient of ``x``, in the layout of ``x``."""
    return y if x.is_contiguous(memory_format=torch.channels_last) else convolve.in_contiguous(y)


def _empty_map(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _empty_like(x: Tensor, *shape: int) -> Tensor:
    return _empty_map(x, *shape) if x.is_contiguous(memory_format=torch.channels_last) else x.new_empty(shape)


def _output(x: Tensor, channels: int, kernel: Sizes, moves: Sequence[Sizes]) -> Tensor:
    return _empty_like(x, x.shape[0], channels, *by_torch.output_size(x.shape[2:], kernel, *moves))


# depthwise_each


def _depthwise(x: Tensor, kernels: Tensor, biases: Tensor | None, *moves: Sizes) -> Tensor:
    biases = None if biases is None else biases.contiguous()
    taps = depthwise.taps_of(kernels)
    return _like(x, depthwise.depthwise(_channels_last(x), taps, kernels.shape[3:], biases, *moves))


def _depthwise_gradients(
    gradient: Tensor, x: Tensor, kernels: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes, mask: Sequence[bool]
) -> tuple[Tensor, Tensor]:
    of_x, of_kernels = x.new_empty(0), x.new_empty(0)  # an operator's outputs must not be one tensor
    kernel, moves = kernels.shape[3:], (stride, padding, dilation)
    gradient = _channels_last(gradient)
    if mask[0]:
        of_x = _like(x, depthwise.input_gradient(gradient, x.shape, depthwise.taps_of(kernels), kernel, *moves))
    if mask[1]:
        of_kernels = _as_kernels(depthwise.kernel_gradient(gradient, _channels_last(x), kernel, *moves), kernel)
    return of_x, of_kernels


def _as_kernels(taps: Tensor, kernel: Sizes) -> Tensor:
    """``(B, kh * kw, C) -> (B, C, 1, kh, kw)``, a view."""
    return taps.transpose(1, 2).unflatten(2, (1, *kernel))


def _depthwise_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    x, kernels = ctx.saved_tensors
    needed = ctx.needs_input_grad[:2]
    of_biases = gradient.sum(dim=(2, 3)) if ctx.needs_input_grad[2] else None
    found: Sequence[Tensor | None]
    if torch.is_grad_enabled() or is_wrapped(gradient):
        found = by_torch.gradients(partial(_each_by_torch, ctx.moves), (x, kernels), needed, gradient)
    else:
        found = torch.ops.dynaconv.depthwise_each_backward(gradient, x, kernels, *ctx.moves, list(needed))
    return (*_wanted(found, needed), of_biases, None, None, None)


def _each_by_torch(moves: Sequence[Any], x: Tensor, kernels: Tensor) -> Tensor:
    stride, padding, dilation = moves
    return by_torch.convolve_each(x, kernels, None, stride, padding, dilation, x.shape[1])


def _depthwise_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, kernels, _, *ctx.moves = inputs
    ctx.save_for_backward(x, kernels)


def _fake_depthwise(x: Tensor, kernels: Tensor, biases: Tensor | None, *moves: Sizes) -> Tensor:
    return _output(x, x.shape[1], kernels.shape[3:], moves)


def _fake_depthwise_gradients(gradient: Tensor, x: Tensor, kernels: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    need_x, need_kernels = rest[-1]
    batch, channels, _, *kernel = kernels.shape
    taps = x.new_empty(batch, math.prod(kernel), channels)
    return _empty_like(x, *x.shape) if need_x else x.new_empty(0), _as_kernels(
        taps, kernel
    ) if need_kernels else x.new_empty(0)


# mix_conv2d and experts_conv2d: the same operation


def _mixed(x: Tensor, bank: Tensor, routing: Tensor, biases: Tensor | None, *moves: Sizes) -> Tensor:
    biases = None if biases is None else biases.contiguous()
    packed, kernel = convolve.pack_bank(bank), bank.shape[3:]
    return _like(x, convolve.convolve(_channels_last(x), packed, routing, biases, bank.shape[1], kernel, *moves))


def _mixed_gradients(
    gradient: Tensor,
    x: Tensor,
    bank: Tensor,
    routing: Tensor,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    mask: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    of_x, of_bank, of_routing = x.new_empty(0), x.new_empty(0), x.new_empty(0)
    gradient, moves = _channels_last(gradient), (bank.shape[3:], stride, padding, dilation)
    if mask[0]:
        turned = convolve.pack_bank(bank, transposed=True)
        of_x = _like(x, convolve.input_gradient(gradient, x.shape, turned, routing, *moves))
    if mask[1] or mask[2]:
        packed = convolve.pack_bank(bank)
        packed, of_routing = convolve.bank_gradient(gradient, _channels_last(x), packed, routing, *moves)
        of_bank = convolve.unpack_bank(packed, bank.shape) if mask[1] else of_bank
    return of_x, of_bank, of_routing


def _by_experts(x: Tensor, bank: Tensor, routing: Tensor, biases: Tensor | None, *moves: Sizes) -> Tensor:
    biases = None if biases is None else biases.contiguous()
    return _like(x, experts.convolve(_channels_last(x), bank.contiguous(), routing, biases, *moves))


def _by_experts_gradients(
    gradient: Tensor,
    x: Tensor,
    bank: Tensor,
    routing: Tensor,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    mask: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    of_x, of_bank, of_routing = x.new_empty(0), x.new_empty(0), x.new_empty(0)
    gradient, own, moves = _channels_last(gradient), _channels_last(x), (stride, padding, dilation)
    if mask[0] or mask[2]:
        found, of_routing = experts.input_gradient(gradient, own, bank.contiguous(), routing, *moves, of_input=mask[0])
        of_x = of_x if found is None else _like(x, found)
    if mask[1]:
        of_bank = experts.bank_gradient(gradient, own, routing, bank.shape, *moves)
    return of_x, of_bank, of_routing


def _mixed_backward(gradients: Callable[..., Any], ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    inputs, needed = ctx.saved_tensors, ctx.needs_input_grad[:3]
    of_biases = gradient.sum(dim=(2, 3)) if ctx.needs_input_grad[3] else None
    found: Sequence[Tensor | None]
    if torch.is_grad_enabled() or is_wrapped(gradient):
        found = by_torch.gradients(partial(_mix_by_torch, ctx.moves), inputs, needed, gradient)
    else:
        found = gradients(gradient, *inputs, *ctx.moves, list(needed))
    return (*_wanted(found, needed), of_biases, None, None, None)


def _mix_by_torch(moves: Sequence[Any], x: Tensor, bank: Tensor, routing: Tensor) -> Tensor:
    stride, padding, dilation = moves
    return by_torch.mix_conv2d(x, bank, routing, None, stride, padding, dilation, 1)


def _mixed_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, bank, routing, _, *ctx.moves = inputs
    ctx.save_for_backward(x, bank, routing)


def _fake_mixed(x: Tensor, bank: Tensor, routing: Tensor, biases: Tensor | None, *moves: Sizes) -> Tensor:
    return _output(x, bank.shape[1], bank.shape[3:], moves)


def _fake_mixed_gradients(
    gradient: Tensor, x: Tensor, bank: Tensor, routing: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    mask = rest[-1]
    of_bank = bank.new_empty(bank.shape) if mask[1] else x.new_empty(0)
    of_routing = routing.new_empty(routing.shape) if mask[1] or mask[2] else x.new_empty(0)
    return _empty_like(x, *x.shape) if mask[0] else x.new_empty(0), of_bank, of_routing


def _fake_by_experts_gradients(
    gradient: Tensor, x: Tensor, bank: Tensor, routing: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    of_input, of_bank, of_weights = rest[-1]
    of_routing = routing.new_empty(routing.shape) if of_input or of_weights else x.new_empty(0)
    return (
        _empty_like(x, *x.shape) if of_input else x.new_empty(0),
        bank.new_empty(bank.shape) if of_bank else x.new_empty(0),
        of_routing,
    )


def _wanted(found: Sequence[Tensor | None], needed: Sequence[bool]) -> list[Tensor | None]:
    return [gradient if need else None for gradient, need in zip(found, needed, strict=True)]


def _register(name: str, schema: str, kernel: Callable[..., Any], fake: Callable[..., Any]) -> None:
    _LIBRARY.define(name + schema, tags=_TAGS)
    _LIBRARY.impl(name, kernel, "CPU")
    torch.library.register_fake(f"dynaconv::{name}", fake, lib=_LIBRARY)


_differentiable = partial(torch.library.register_autograd, lib=_LIBRARY)

_register(
    "depthwise_each", f"(Tensor x, Tensor kernels, Tensor? biases, {_MOVES}) -> Tensor", _depthwise, _fake_depthwise
)
_register(
    "depthwise_each_backward",
    f"(Tensor gradient, Tensor x, Tensor kernels, {_MOVES}, bool[2] mask) -> (Tensor, Tensor)",
    _depthwise_gradients,
    _fake_depthwise_gradients,
)
_differentiable("dynaconv::depthwise_each", _depthwise_backward, setup_context=_depthwise_context)
for _name, _forward, _gradients, _fake_gradients in (
    ("mix_conv2d", _mixed, _mixed_gradients, _fake_mixed_gradients),
    ("experts_conv2d", _by_experts, _by_experts_gradients, _fake_by_experts_gradients),
):
    _register(
        _name, f"(Tensor x, Tensor bank, Tensor routing, Tensor? biases, {_MOVES}) -> Tensor", _forward, _fake_mixed
    )
    _register(
        f"{_name}_backward",
        f"(Tensor gradient, Tensor x, Tensor bank, Tensor routing, {_MOVES}, bool[3] mask) -> (Tensor, Tensor, Tensor)",
        _gradients,
        _fake_gradients,
    )
    _differentiable(
        f"dynaconv::{_name}",
        partial(_mixed_backward, getattr(torch.ops.dynaconv, f"{_name}_backward")),
        setup_context=_mixed_context,
    )
