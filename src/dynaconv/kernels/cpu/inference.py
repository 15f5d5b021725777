"""Functions for frozen networks: a whole layer in one call, mixing of reduced banks, routers, and sums over space."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dynaconv.kernels.cpu import border
from dynaconv.kernels.cpu.arguments import IDENTITY, Activation, Layer, partition
from dynaconv.kernels.cpu.border import CHANNELS_LAST, PANEL, data_ptr, optional
from dynaconv.kernels.cpu.build import library


class LinearRouter(NamedTuple):
    """A router of one or two linear layers, float32: ``act(relu(mean(x) H^T + h) F^T + f)``.

    Attributes:
        hidden_weight, hidden_bias: ``(hidden, C)``, ``(hidden,)``; None where there is no hidden layer, or no bias.
        fc_weight, fc_bias: ``(K, hidden or C)``, ``(K,)``.
        softmax: whether ``act`` is the softmax, else the sigmoid.
    """

    hidden_weight: Tensor | None
    hidden_bias: Tensor | None
    fc_weight: Tensor
    fc_bias: Tensor | None
    softmax: bool


class PreparedLayer(NamedTuple):
    """A layer whose tensors were checked for one input size; see :func:`prepare_layer`. It holds addresses only: the
    caller must keep the tensors alive."""

    layer: Layer
    reference: Any
    experts: int
    outputs: int
    shape: tuple[int, int, int]  # channels, height and width of the input
    size: tuple[int, int]  # of the output
    routes: bool  # whether it has a router


def prepare_layer(
    shape: Sequence[int],
    outputs: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    *,
    depthwise: bool,
    bank: Tensor,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    biases: Tensor | None = None,
    activation: Activation = IDENTITY,
    router: LinearRouter | None = None,
) -> PreparedLayer:
    """Check a frozen layer's tensors for inputs of ``shape`` ``(C, H, W)``, and store their addresses.

    Args:
        shape, outputs, kernel, stride, padding, dilation: the convolution.
        depthwise: whether the layer is depthwise, with as many channels out as in.
        bank: packed ``(K, ceil(outputs / 32), taps * C, 32)``, or ``(K, taps, C)`` of a depthwise layer; float32,
            bfloat16 or int8.
        scale: of an int8 bank, one number for every output channel: ``(K, ceil(outputs / 32), 1, 32)``, or
            ``(K, 1, C)`` of a depthwise layer.
        bias: ``(outputs,)`` or None.
        biases: ``(K, outputs)`` or None; mixed by the routing weights and added to ``bias``.
        activation: applied to the output.
        router: a router for C to run, or None.

    Raises:
        TypeError, ValueError: another dtype, shape or layout than these.
    """
    channels, height, width = shape
    experts = bank.shape[0]
    sizes = border.sizes((0, *shape), experts, outputs, kernel, stride, padding, dilation)
    taps = kernel[0] * kernel[1]
    if depthwise and outputs != channels:
        raise ValueError(f"a depthwise layer from {channels} to {outputs} channels; expected as many out as in")
    if depthwise:
        bank_shape: tuple[int, ...] = (experts, taps, channels)
        scale_shape: tuple[int, ...] = (experts, 1, channels)
    else:
        bank_shape = border.packed_shape(experts, channels, outputs, taps)
        scale_shape = *bank_shape[:2], 1, PANEL
    layer = Layer(
        depthwise,
        sizes.convolution,
        border.bank(bank, scale, bank_shape, scale_shape),
        optional("bias", bias, (outputs,)),
        optional("biases", biases, (experts, outputs)),
        *(activation.number, activation.low, activation.high),
        *((0, 0, None, None, None, None) if router is None else _router(router, channels, experts)),
    )
    return PreparedLayer(
        layer, ctypes.byref(layer), experts, outputs, (channels, height, width), sizes.output, router is not None
    )


def frozen_layer(
    prepared: PreparedLayer, x: Tensor, routing: Tensor | None, sums: Tensor | None
) -> tuple[Tensor, Tensor]:
    """``y[b] = activation(conv(x[b], sum_k routing[b, k] * bank[k]) + bias[b])``, and the sums of ``y`` over space.

    Args:
        prepared: the layer; its tensors must still exist.
        x: ``(B, C, H, W)`` float32 in channels_last.
        routing: ``(B, K)`` float32, or None to run the layer's router.
        sums: ``(B, C)``, the sums of ``x`` over space, which the router reads; None to compute them.

    Returns:
        ``(B, outputs, H', W')`` in channels_last, and ``(B, outputs)``.
    """
    batch = x.shape[0]
    read = data_ptr("x", x, (batch, *prepared.shape), layout=CHANNELS_LAST)
    weights = optional("routing", routing, (batch, prepared.experts))
    known = optional("sums", sums, (batch, prepared.shape[0]))
    if routing is None and not prepared.routes:
        raise ValueError("routing is None, and the layer has no router that C can run; expected (batch, experts)")
    y = border.new_map(batch, prepared.outputs, *prepared.size)
    sums_out = torch.empty(batch, prepared.outputs, dtype=torch.float32, device="cpu")
    if batch:
        library().dynaconv_frozen_layer(
            prepared.reference,
            batch,
            *partition(batch, prepared.shape[0]),
            routing is not None,
            weights,
            known,
            read,
            y.data_ptr(),
            sums_out.data_ptr(),
        )
    return y, sums_out


def channel_sums(x: Tensor) -> Tensor:
    """``(B, C, H, W)`` float32 in channels_last ``-> (B, C)``, sums over space."""
    shape = batch, channels, height, width = border.map_shape("x", x)
    read = data_ptr("x", x, shape, layout=CHANNELS_LAST)
    sums = torch.zeros(batch, channels, dtype=torch.float32, device="cpu")
    if batch:
        slabs, threads = partition(batch, channels)
        library().dynaconv_channel_sums(batch, height * width, channels, slabs, threads, sums.data_ptr(), read)
    return sums


def route(sums: Tensor, pixels: int, router: LinearRouter) -> Tensor:
    """Routing weights ``(B, K)`` from sums ``(B, C)`` over ``pixels`` pixels; fast for small batches."""
    batch, channels = sums.shape
    experts = router.fc_weight.shape[0]
    width, softmax, *weights = _router(router, channels, experts)
    read = data_ptr("sums", sums, (batch, channels))
    out = torch.empty(batch, experts, dtype=torch.float32, device="cpu")
    if batch:
        library().dynaconv_route(batch, channels, width, experts, softmax, 1 / pixels, read, *weights, out.data_ptr())
    return out


def mix(bank: Tensor, scale: Tensor | None, routing: Tensor) -> Tensor:
    """``(K, rows, columns), (B, K) -> (B, rows, columns)`` float32, from a float32, bfloat16 or int8 bank.

    ``scale`` of an int8 bank is ``(K, 1, columns)`` or ``(K, rows, 1)``.
    """
    experts, rows, columns = bank.shape
    if not experts:
        raise ValueError(f"the bank is {tuple(bank.shape)}; expected at least one expert")
    batch = routing.shape[0]
    by_column = scale is not None and scale.shape == (experts, 1, columns)
    scale_shape = (experts, 1, columns) if by_column else (experts, rows, 1)
    numbers = border.bank(bank, scale, (experts, rows, columns), scale_shape)
    routing = routing.contiguous().resolve_neg()
    weights = data_ptr("routing", routing, (batch, experts))
    out = torch.empty(batch, rows, columns, dtype=torch.float32, device="cpu")
    if out.numel():
        sizes = batch, experts, rows, columns, by_column, torch.get_num_threads()
        library().dynaconv_mix(numbers.kind, *sizes, weights, numbers.numbers, numbers.scale, out.data_ptr())
    return out


def _router(router: LinearRouter, channels: int, experts: int) -> tuple[Any, ...]:
    hidden = router.hidden_weight
    width = 0 if hidden is None else hidden.shape[0]
    return (
        width,
        int(router.softmax),
        optional("hidden_weight", hidden, (width, channels)),
        optional("hidden_bias", router.hidden_bias, (width,)),
        data_ptr("fc_weight", router.fc_weight, (experts, width or channels)),
        optional("fc_bias", router.fc_bias, (experts,)),
    )
