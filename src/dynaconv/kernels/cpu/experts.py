"""Dense convolution by every expert over the whole batch, in channels_last, and its gradients: experts.c.

The same operation as :mod:`dynaconv.kernels.cpu.convolve`, for maps so small that mixing a kernel costs more than its
use. The bank is read in torch's own layout, ``(K, out, in, kh, kw)``, and never packed as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dynaconv.kernels.cpu import border
from dynaconv.kernels.cpu.border import CHANNELS_LAST, data_ptr
from dynaconv.kernels.cpu.build import library

Pair = Sequence[int]


def convolve(
    x: Tensor, bank: Tensor, routing: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, dilation: Pair
) -> Tensor:
    """``y[b] = sum_k routing[b, k] * conv(x[b], bank[k]) + bias[b]``.

    Args:
        x: ``(B, C, H, W)`` float32 on the CPU, contiguous as channels_last.
        bank: ``(K, out, C, kh, kw)`` float32, contiguous.
        routing: ``(B, K)`` float32.
        bias: ``(B, out)`` float32 or None; dense.
        stride, padding, dilation: two numbers each.

    Returns:
        ``(B, out, H', W')`` in channels_last.

    Raises:
        TypeError, ValueError: another dtype, shape or layout than these.
        MemoryError: the kernel's workspace cannot be allocated.
    """
    shape, kernels = border.map_shape("x", x), _bank_shape(bank, x)
    sizes = border.sizes(shape, kernels[0], kernels[1], kernels[3:], stride, padding, dilation)
    weights, routing = _routing(routing, shape[0], kernels[0])
    biases = border.optional("bias", bias, (shape[0], kernels[1]))
    read, start = data_ptr("x", x, shape, layout=CHANNELS_LAST), data_ptr("the bank", bank, kernels)
    y = border.new_map(shape[0], kernels[1], *sizes.output)
    if shape[0]:
        threads = torch.get_num_threads()
        library().dynaconv_experts(sizes.reference, threads, start, weights, biases, read, y.data_ptr())
    return y


def input_gradient(
    gradient: Tensor,
    x: Tensor,
    bank: Tensor,
    routing: Tensor,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    *,
    of_input: bool = True,
) -> tuple[Tensor | None, Tensor]:
    """Gradients of the input (None unless ``of_input``) and of the routing weights, ``(B, C, H, W)`` and ``(B, K)``."""
    shape, kernels = border.map_shape("x", x), _bank_shape(bank, x)
    sizes = border.sizes(shape, kernels[0], kernels[1], kernels[3:], stride, padding, dilation)
    weights, routing = _routing(routing, shape[0], kernels[0])
    upstream = data_ptr("gradient", gradient, (shape[0], kernels[1], *sizes.output), layout=CHANNELS_LAST)
    read, start = data_ptr("x", x, shape, layout=CHANNELS_LAST), data_ptr("the bank", bank, kernels)
    of_x, of_routing = border.new_map(*shape) if of_input else None, torch.empty_like(routing)
    if shape[0]:
        library().dynaconv_experts_input_gradient(
            sizes.reference,
            torch.get_num_threads(),
            start,
            weights,
            read,
            upstream,
            None if of_x is None else of_x.data_ptr(),
            of_routing.data_ptr(),
        )
    return of_x, of_routing


def bank_gradient(
    gradient: Tensor, x: Tensor, routing: Tensor, shape: Sequence[int], stride: Pair, padding: Pair, dilation: Pair
) -> Tensor:
    """Gradient of a bank of this ``shape``, from the upstream ``gradient`` in channels_last."""
    batch, inputs, *_ = border.map_shape("x", x)
    experts, outputs, channels, *kernel = shape
    if channels != inputs:
        raise ValueError(f"the bank is {tuple(shape)} and the input has {inputs} channels; expected one number of both")
    sizes = border.sizes(x.shape, experts, outputs, kernel, stride, padding, dilation)
    weights, routing = _routing(routing, batch, experts)
    upstream = data_ptr("gradient", gradient, (batch, outputs, *sizes.output), layout=CHANNELS_LAST)
    read = data_ptr("x", x, x.shape, layout=CHANNELS_LAST)
    if not batch:
        return torch.zeros(tuple(shape), dtype=torch.float32, device="cpu")
    of_bank = torch.empty(tuple(shape), dtype=torch.float32, device="cpu")
    library().dynaconv_experts_bank_gradient(
        sizes.reference, torch.get_num_threads(), weights, read, upstream, of_bank.data_ptr()
    )
    return of_bank


def _bank_shape(bank: Tensor, x: Tensor) -> torch.Size:
    if not isinstance(bank, Tensor) or bank.dim() != 5 or bank.shape[2] != x.shape[1]:
        came = tuple(bank.shape) if isinstance(bank, Tensor) else type(bank).__name__
        raise ValueError(f"the bank is {came}; expected (experts, out, {x.shape[1]}, height, width)")
    return bank.shape


def _routing(routing: Tensor, batch: int, experts: int) -> tuple[int, Tensor]:
    """The address of the routing weights, and the tensor that must be kept alive while it is used."""
    routing = routing.contiguous()
    return data_ptr("routing", routing, (batch, experts)), routing
