"""Strategy ``loop``: the batch is processed in pieces, so that mixed kernels are used while they are in the cache.

To mix all B kernels first means to write B kernels to memory and to read them again, in training twice. In the wide
layers of a mobile network that is most of the memory traffic. Here the kernels of a few examples are mixed at a time.
Each example is convolved by an ordinary convolution in the layout of the input (1x1 and linear: by a batched matrix
product). The backward pass mixes the kernels again instead of keeping them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dynaconv.kernels import by_torch
from dynaconv.ops.call import Call, autocast_dtype
from dynaconv.ops.convolution import convolve, mix_biases, mix_kernels
from dynaconv.ops.geometry import Geometry
from dynaconv.ops.strategies import matmul
from dynaconv.ops.strategies.strategy import Strategy
from dynaconv.torch_private import as_no_view, forward_ad_active, is_wrapped

# Size of the mixed kernels of one piece. 4 MiB were faster than 1 MiB in every wide layer. A piece has a few examples
# at least, however large their kernels are, because every piece reads the whole bank (docs/performance.md, steps 4, 9).
PIECE_BYTES = 4 << 20
LEAST_EXAMPLES = 4


def refuses(call: Call) -> str | None:
    if call.exporting:
        return "the number of pieces is a constant of the exported graph: it would freeze the batch size"
    return None


def mix(x: Tensor, bank: Tensor, routing: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """For every piece of the batch: mix its kernels, convolve, free them."""
    low = autocast_dtype(x.device.type)
    if low is None:
        return _mix(x, bank, routing, bias, geometry)
    x, bank, routing = (_lowered(tensor, low) for tensor in (x, bank, routing))
    bias = None if bias is None else _lowered(bias, low)
    # The backward pass runs without autocast, and both passes must see the same dtypes.
    with torch.autocast(x.device.type, enabled=False):
        return _mix(x, bank, routing, bias, geometry)


def _mix(x: Tensor, bank: Tensor, routing: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    tensors = [tensor for tensor in (x, bank, routing, bias) if tensor is not None]
    needs_grad = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    # torch.compile and torch.func derive the backward pass themselves.
    if needs_grad and not torch.compiler.is_compiling() and not _is_transformed(tensors):
        y: Tensor = _Remixed.apply(x, bank, routing, bias, geometry)
        return y
    return _forward(x, bank, routing, bias, geometry)


def _is_transformed(tensors: Sequence[Tensor]) -> bool:
    """Whether forward mode, ``vmap`` or their like see the call: :class:`_Remixed` has a backward pass and no more."""
    return forward_ad_active() or any(is_wrapped(tensor) for tensor in tensors)


def _lowered(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.to(dtype)  # autocast leaves float64 alone


def pieces(batch: int, kernel_bytes: int) -> Iterator[slice]:
    """Slices of the batch with :data:`PIECE_BYTES` of kernels at most, but :data:`LEAST_EXAMPLES` examples at least."""
    step = max(LEAST_EXAMPLES, PIECE_BYTES // max(1, kernel_bytes))
    for start in range(0, batch, step):
        yield slice(start, min(start + step, batch))


def _pieces(x: Tensor, bank: Tensor) -> Iterator[slice]:
    return pieces(x.shape[0], bank[0].numel() * bank.element_size())


def _forward(x: Tensor, bank: Tensor, routing: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    outputs = []
    biases = mix_biases(bias, routing)
    for piece in _pieces(x, bank):
        kernels = mix_kernels(bank, routing[piece])
        outputs.append(convolve_each(x[piece], kernels, None if biases is None else biases[piece], geometry))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _forward_with(geometry: Geometry, x: Tensor, bank: Tensor, routing: Tensor, bias: Tensor | None) -> Tensor:
    return _forward(x, bank, routing, bias, geometry)


def convolve_each(x: Tensor, kernels: Tensor, biases: Tensor | None, geometry: Geometry) -> Tensor:
    """Every example with its own kernel: ``(b, in, *space), (b, *kernel), (b, out) -> (b, out, *space)``."""
    if matmul.fits(geometry, _taps(kernels, geometry)):
        return matmul.convolve_each(x, kernels, biases, geometry)
    outputs = [
        convolve(x[index : index + 1], kernels[index], None if biases is None else biases[index], geometry)
        for index in range(x.shape[0])
    ]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _taps(kernels: Tensor, geometry: Geometry) -> Sequence[int]:
    return kernels.shape[-geometry.dims :] if geometry.dims else ()


class _Remixed(torch.autograd.Function):
    """The loop with its own backward pass. That pass consists of differentiable operations, so it can be
    differentiated again."""

    @staticmethod
    def forward(x: Tensor, bank: Tensor, routing: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
        y = _forward(x, bank, routing, bias, geometry)
        return as_no_view(y)  # torch lets nothing work in place on a view that a Function made

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, bank, routing, bias, ctx.geometry = inputs
        ctx.save_for_backward(x, bank, routing, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, bank, routing, bias = ctx.saved_tensors
        need_x, need_bank, need_routing, need_bias = ctx.needs_input_grad[:4]
        if is_wrapped(gradient):  # many gradients at once: sums in place are not possible then
            found = by_torch.gradients(
                partial(_forward_with, ctx.geometry), ctx.saved_tensors, ctx.needs_input_grad[:4], gradient
            )
            return (*found, None)
        flat = bank.flatten(1)
        wide = torch.promote_types(bank.dtype, torch.float32)  # a sum over pieces must not round at every step
        weights, of_bank = routing.to(wide), torch.zeros_like(flat, dtype=wide)
        of_x, of_routing = [], []
        for piece in _pieces(x, bank):
            kernels = mix_kernels(bank, routing[piece])
            of_input, of_kernels = _gradients(
                gradient[piece], x[piece], kernels, ctx.geometry, need_x, need_bank or need_routing
            )
            of_x.append(of_input)
            if need_bank:
                of_bank.addmm_(weights[piece].t(), of_kernels.flatten(1).to(wide))
            if need_routing:
                of_routing.append(of_kernels.flatten(1) @ flat.t())
        routing_gradient = torch.cat(of_routing) if need_routing else None
        bias_gradient = None
        if bias is not None and (need_bias or need_routing):
            sums = _sum_space(gradient, ctx.geometry)
            bias_gradient = routing.to(bias.dtype).t() @ sums if need_bias else None
            if routing_gradient is not None:
                routing_gradient = routing_gradient + sums @ bias.t()
        return (
            torch.cat(of_x) if need_x else None,
            of_bank.to(bank.dtype).view_as(bank) if need_bank else None,
            None if routing_gradient is None else routing_gradient.to(routing.dtype),
            bias_gradient,
            None,
        )


def _sum_space(gradient: Tensor, geometry: Geometry) -> Tensor:
    """``(B, out, *space) -> (B, out)``; linear ``(B, *, out) -> (B, out)``."""
    axes = tuple(range(2, gradient.dim())) if geometry.dims else tuple(range(1, gradient.dim() - 1))
    return gradient.sum(dim=axes) if axes else gradient


def _gradients(
    gradient: Tensor, x: Tensor, kernels: Tensor, geometry: Geometry, need_x: bool, need_kernels: bool
) -> tuple[Any, Any]:
    """Gradients of a piece's input and of its kernels; None for what is not needed."""
    if geometry.dims == 0:
        rows, upstream = x.reshape(x.shape[0], -1, x.shape[-1]), gradient.reshape(x.shape[0], -1, gradient.shape[-1])
        of_x = (upstream @ kernels).reshape(x.shape) if need_x else None
        return of_x, upstream.transpose(1, 2) @ rows if need_kernels else None
    if matmul.fits(geometry, _taps(kernels, geometry)) and matmul.keeps_positions(geometry):
        return matmul.gradients(gradient, x, kernels, geometry, need_x, need_kernels)
    of_xs, of_kernels = [], []
    for index in range(x.shape[0]):
        one, two, _ = torch.ops.aten.convolution_backward(
            gradient[index : index + 1],
            x[index : index + 1],
            kernels[index],
            None,
            geometry.stride,
            geometry.padding,
            geometry.dilation,
            geometry.transposed,
            geometry.output_padding,
            geometry.groups,
            (need_x, need_kernels, False),
        )
        of_xs.append(one)
        of_kernels.append(two)
    return torch.cat(of_xs) if need_x else None, torch.stack(of_kernels) if need_kernels else None


STRATEGY = Strategy(refuses=refuses, convolve_each=convolve_each, mix=mix)
