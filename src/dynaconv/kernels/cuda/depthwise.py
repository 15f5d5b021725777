"""Kernels for depthwise convolutions: a stencil whose taps are mixed in registers.

This module imports triton; import it only when a kernel is launched.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped, import-not-found"
# Triton reads the annotations of a kernel's arguments, so only Triton's types are allowed there.

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from dynaconv.kernels.cuda import tiles
from dynaconv.kernels.cuda.device_functions import expert_ids, source_index
from dynaconv.kernels.cuda.shape import Move, channels_last, strides, workspace
from dynaconv.kernels.cuda.tiles import Launch, ceil_div


@triton.jit
def depthwise_kernel(
    x,
    bank,
    routing,
    bias,
    y,
    rows,
    row_width,
    channels,
    x_height,
    x_width,
    stride_h,
    stride_w,
    padding_h,
    padding_w,
    dilation_h,
    dilation_w,
    x_b,
    x_c,
    x_h,
    x_w,
    y_b,
    y_c,
    y_h,
    y_w,
    bank_k,
    bank_c,
    bank_h,
    bank_w,
    routing_b,
    routing_k,
    bias_k,
    bias_c,
    EXPERTS: tl.constexpr,
    TAPS_H: tl.constexpr,
    TAPS_W: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """A tile of ``y[b]``, positions x channels: every tap is mixed once per program and used for all its positions."""
    program = tl.program_id(0)
    row_tiles = tl.cdiv(rows, ROWS)
    channel_tiles = tl.cdiv(channels, CHANNELS)
    b = (program // (row_tiles * channel_tiles)).to(tl.int64)
    row = ((program // channel_tiles) % row_tiles) * ROWS + tl.arange(0, ROWS)
    c = (program % channel_tiles) * CHANNELS + tl.arange(0, CHANNELS)
    row_h = row // row_width
    row_w = row % row_width
    row_inside = row < rows
    c_inside = c < channels
    total = tl.zeros((ROWS, CHANNELS), dtype=tl.float32)
    for tap_h in range(TAPS_H):  # not unrolled: one row of taps fills the registers
        source_h, inside_h = source_index(row_h, tap_h, stride_h, padding_h, dilation_h, x_height, TRANSPOSED)
        for tap_w in tl.static_range(TAPS_W):
            source_w, inside_w = source_index(row_w, tap_w, stride_w, padding_w, dilation_w, x_width, TRANSPOSED)
            bank_ptr = bank + tap_h * bank_h + tap_w * bank_w + c * bank_c
            mixed = tl.zeros((CHANNELS,), dtype=tl.float32)
            for k in tl.static_range(EXPERTS):
                weight = tl.load(routing + b * routing_b + k * routing_k).to(tl.float32)
                mixed += weight * tl.load(bank_ptr + k * bank_k, mask=c_inside, other=0.0).to(tl.float32)
            x_ptr = x + b * x_b + (source_h * x_h + source_w * x_w)[:, None] + (c * x_c)[None, :]
            mask = (row_inside & inside_h & inside_w)[:, None] & c_inside[None, :]
            total += tl.load(x_ptr, mask=mask, other=0.0).to(tl.float32) * mixed[None, :]
    if HAS_BIAS:
        shift = tl.zeros((CHANNELS,), dtype=tl.float32)
        for k in tl.static_range(EXPERTS):
            weight = tl.load(routing + b * routing_b + k * routing_k).to(tl.float32)
            shift += weight * tl.load(bias + k * bias_k + c * bias_c, mask=c_inside, other=0.0).to(tl.float32)
        total += shift[None, :]
    y_ptr = y + b * y_b + (row_h * y_h + row_w * y_w)[:, None] + (c * y_c)[None, :]
    tl.store(y_ptr, total.to(y.dtype.element_ty), mask=row_inside[:, None] & c_inside[None, :])


@triton.jit
def depthwise_gradient_kernel(
    gradient,
    x,
    bank,
    routing,
    of_bank,
    of_routing,
    batch,
    part,
    rows,
    row_width,
    channels,
    x_height,
    x_width,
    stride_h,
    stride_w,
    padding_h,
    padding_w,
    dilation_h,
    dilation_w,
    gradient_b,
    gradient_c,
    gradient_h,
    gradient_w,
    x_b,
    x_c,
    x_h,
    x_w,
    bank_k,
    bank_c,
    bank_h,
    bank_w,
    routing_b,
    routing_k,
    EXPERTS: tl.constexpr,
    EXPERTS_PADDED: tl.constexpr,
    TAPS_H: tl.constexpr,
    TAPS_W: tl.constexpr,
    TAPS_PADDED: tl.constexpr,
    NEED_BANK: tl.constexpr,
    NEED_ROUTING: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Gradient of all taps of some channels, summed over one part of the batch.

    The upstream gradient is read once for all taps. Registers cannot be indexed, so the sum of one tap is added to its
    row of ``(taps, channels)`` by a mask.
    """
    program = tl.program_id(0)
    channel_tiles = tl.cdiv(channels, CHANNELS)
    tile = program % channel_tiles
    this_part = program // channel_tiles
    c = tile * CHANNELS + tl.arange(0, CHANNELS)
    c_inside = c < channels
    tap = tl.arange(0, TAPS_PADDED)
    k, k_inside = expert_ids(EXPERTS, EXPERTS_PADDED)
    expert_mask = k_inside[:, None, None] & ((tap < TAPS_H * TAPS_W)[:, None] & c_inside[None, :])[None, :, :]
    if NEED_ROUTING:
        bank_ptr = bank + ((tap // TAPS_W) * bank_h + (tap % TAPS_W) * bank_w)[:, None] + (c * bank_c)[None, :]
        experts = tl.load(bank_ptr[None, :, :] + (k * bank_k)[:, None, None], mask=expert_mask, other=0.0)
    if NEED_BANK:
        total = tl.zeros((EXPERTS_PADDED, TAPS_PADDED, CHANNELS), dtype=tl.float32)
    for example in range(this_part * part, tl.minimum(this_part * part + part, batch)):
        b = tl.cast(example, tl.int64)
        of_kernel = tl.zeros((TAPS_PADDED, CHANNELS), dtype=tl.float32)
        for start in range(0, rows, ROWS):
            row = start + tl.arange(0, ROWS)
            row_h = row // row_width
            row_w = row % row_width
            mask = (row < rows)[:, None] & c_inside[None, :]
            up_ptr = gradient + b * gradient_b + (row_h * gradient_h + row_w * gradient_w)[:, None]
            up = tl.load(up_ptr + (c * gradient_c)[None, :], mask=mask, other=0.0).to(tl.float32)
            for tap_h in tl.static_range(TAPS_H):
                source_h, inside_h = source_index(row_h, tap_h, stride_h, padding_h, dilation_h, x_height, False)
                for tap_w in tl.static_range(TAPS_W):
                    source_w, inside_w = source_index(row_w, tap_w, stride_w, padding_w, dilation_w, x_width, False)
                    x_ptr = x + b * x_b + (source_h * x_h + source_w * x_w)[:, None] + (c * x_c)[None, :]
                    values = tl.load(x_ptr, mask=mask & (inside_h & inside_w)[:, None], other=0.0).to(tl.float32)
                    of_tap = tl.sum(up * values, axis=0)
                    of_kernel += tl.where((tap == tap_h * TAPS_W + tap_w)[:, None], of_tap[None, :], 0.0)
        if NEED_BANK:
            weights = tl.load(routing + b * routing_b + k * routing_k, mask=k_inside, other=0.0).to(tl.float32)
            total += weights[:, None, None] * of_kernel[None, :, :]
        if NEED_ROUTING:
            agreement = tl.sum(tl.sum(experts.to(tl.float32) * of_kernel[None, :, :], axis=2), axis=1)
            tl.store(of_routing + (tl.cast(tile, tl.int64) * batch + b) * EXPERTS + k, agreement, mask=k_inside)
    if NEED_BANK:
        # Layout of of_bank: parts, experts, taps, channels; contiguous.
        plane = channels * (TAPS_H * TAPS_W)
        first = tl.cast(this_part, tl.int64) * EXPERTS * plane
        kernel_offsets = (tap * channels)[:, None] + c[None, :]
        tl.store(of_bank + first + (k * plane)[:, None, None] + kernel_offsets[None, :, :], total, mask=expert_mask)


def forward(x: Tensor, bank: Tensor, routing: Tensor, bias: Tensor | None, y: Tensor, move: Move) -> Launch:
    """Fill ``y``: ``(B, C, H, W), (K, C, 1, kh, kw), (B, K), (K, C) -> (B, C, H', W')``."""
    return _launch(x, bank, routing, bias, y, move, transposed=False)


def input_gradient(gradient: Tensor, bank: Tensor, routing: Tensor, of_x: Tensor, move: Move) -> Launch:
    """Fill ``of_x`` ``(B, C, H, W)``: every input position sums over the outputs that read it."""
    return _launch(gradient, bank, routing, None, of_x, move, transposed=True)


def _launch(
    x: Tensor, bank: Tensor, routing: Tensor, bias: Tensor | None, y: Tensor, move: Move, *, transposed: bool
) -> Launch:
    batch, channels, height, width = y.shape
    rows = height * width
    tile_rows, tile_channels = tiles.depthwise(rows, channels, channels_last(y))
    arguments = {
        **{"x": x, "bank": bank, "routing": routing, "bias": bank if bias is None else bias, "y": y},
        **{"rows": rows, "row_width": width, "channels": channels, "x_height": x.shape[2], "x_width": x.shape[3]},
        **move.arguments(),
        **strides("x", x, "bchw"),
        **strides("y", y, "bchw"),
        **strides("bank", bank.squeeze(2), "kchw"),
        **strides("routing", routing, "bk"),
        **({"bias_k": 0, "bias_c": 0} if bias is None else strides("bias", bias, "kc")),
        **{"EXPERTS": bank.shape[0], "TAPS_H": bank.shape[3], "TAPS_W": bank.shape[4]},
        **{"HAS_BIAS": bias is not None, "TRANSPOSED": transposed},
        **{"ROWS": tile_rows, "CHANNELS": tile_channels},
    }
    programs = batch * ceil_div(rows, tile_rows) * ceil_div(channels, tile_channels)
    return Launch(depthwise_kernel, programs, arguments, warps=4, stages=2)


def bank_gradient(
    gradient: Tensor, x: Tensor, bank: Tensor, routing: Tensor, move: Move, need_bank: bool, need_routing: bool
) -> tuple[Launch, Tensor, Tensor]:
    """The launch and what it fills: ``(parts, K, kh, kw, C, 1)`` and ``(tiles, B, K)``, to be summed over the first."""
    batch, channels, height, width = gradient.shape
    experts, _, _, taps_h, taps_w = bank.shape
    rows = height * width
    tile_rows, tile_channels = tiles.depthwise_gradient(experts, taps_h * taps_w, rows, channels, channels_last(x))
    channel_tiles = ceil_div(channels, tile_channels)
    parts = tiles.splits(batch, channel_tiles)
    of_bank = workspace(x, parts, experts, taps_h, taps_w, channels, 1, needed=need_bank)
    of_routing = workspace(x, channel_tiles, batch, experts, needed=need_routing)
    arguments = {
        **{"gradient": gradient, "x": x, "bank": bank, "routing": routing},
        **{"of_bank": of_bank, "of_routing": of_routing, "batch": batch, "part": ceil_div(batch, parts)},
        **{"rows": rows, "row_width": width, "channels": channels, "x_height": x.shape[2], "x_width": x.shape[3]},
        **move.arguments(),
        **strides("gradient", gradient, "bchw"),
        **strides("x", x, "bchw"),
        **strides("bank", bank.squeeze(2), "kchw"),
        **strides("routing", routing, "bk"),
        **{"EXPERTS": experts, "EXPERTS_PADDED": tiles.power_of_two(experts)},
        **{"TAPS_H": taps_h, "TAPS_W": taps_w, "TAPS_PADDED": tiles.power_of_two(taps_h * taps_w)},
        **{"NEED_BANK": need_bank, "NEED_ROUTING": need_routing},
        **{"ROWS": tile_rows, "CHANNELS": tile_channels},
    }
    launch = Launch(depthwise_gradient_kernel, channel_tiles * parts, arguments, warps=8, stages=2)
    return launch, of_bank, of_routing
