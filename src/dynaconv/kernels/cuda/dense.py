"""Kernels for 1x1, linear and dense k x k convolutions: an implicit matrix product (implicit GEMM) that mixes its
weights tile by tile.

This module imports triton; import it only when a kernel is launched.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped, import-not-found"
# Triton reads the annotations of a kernel's arguments, so only Triton's types are allowed there.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from dynaconv.kernels.cuda import tiles
from dynaconv.kernels.cuda.device_functions import add_product, expert_ids, source_index
from dynaconv.kernels.cuda.shape import Move, strides, workspace
from dynaconv.kernels.cuda.tiles import Launch, ceil_div


@triton.jit
def product_kernel(
    x,
    bank,
    routing,
    bias,
    y,
    rows,
    row_width,
    inputs,
    outputs,
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
    bank_n,
    bank_c,
    bank_h,
    bank_w,
    routing_b,
    routing_k,
    bias_k,
    bias_n,
    EXPERTS: tl.constexpr,
    TAPS_H: tl.constexpr,
    TAPS_W: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """A tile of ``y[b]``: positions x output channels, summed over taps and input channels.

    Neighbouring programs compute other rows of the same columns, so that they find the experts in the L2 cache.
    """
    program = tl.program_id(0)
    row_tiles = tl.cdiv(rows, ROWS)
    column_tiles = tl.cdiv(outputs, COLUMNS)
    b = (program // (row_tiles * column_tiles)).to(tl.int64)
    row = (program % row_tiles) * ROWS + tl.arange(0, ROWS)
    n = ((program // row_tiles) % column_tiles) * COLUMNS + tl.arange(0, COLUMNS)
    row_h = row // row_width
    row_w = row % row_width
    row_inside = row < rows
    n_inside = n < outputs
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    depth_tiles = tl.cdiv(inputs, DEPTH)
    for step in range(0, TAPS_H * TAPS_W * depth_tiles):
        tap = step // depth_tiles
        c = (step % depth_tiles) * DEPTH + tl.arange(0, DEPTH)
        tap_h = tap // TAPS_W
        tap_w = tap % TAPS_W
        source_h, inside_h = source_index(row_h, tap_h, stride_h, padding_h, dilation_h, x_height, TRANSPOSED)
        source_w, inside_w = source_index(row_w, tap_w, stride_w, padding_w, dilation_w, x_width, TRANSPOSED)
        x_ptr = x + b * x_b + (source_h * x_h + source_w * x_w)[:, None] + (c * x_c)[None, :]
        x_mask = (row_inside & inside_h & inside_w)[:, None] & (c < inputs)[None, :]
        values = tl.load(x_ptr, mask=x_mask, other=0.0)
        bank_ptr = bank + tap_h * bank_h + tap_w * bank_w + (c * bank_c)[:, None] + (n * bank_n)[None, :]
        bank_mask = (c < inputs)[:, None] & n_inside[None, :]
        mixed = tl.zeros((DEPTH, COLUMNS), dtype=tl.float32)
        for k in tl.static_range(EXPERTS):
            weight = tl.load(routing + b * routing_b + k * routing_k).to(tl.float32)
            mixed += weight * tl.load(bank_ptr + k * bank_k, mask=bank_mask, other=0.0).to(tl.float32)
        total = add_product(values, mixed.to(values.dtype), total, PRECISION, WIDEN)
    if HAS_BIAS:
        shift = tl.zeros((COLUMNS,), dtype=tl.float32)
        for k in tl.static_range(EXPERTS):
            weight = tl.load(routing + b * routing_b + k * routing_k).to(tl.float32)
            shift += weight * tl.load(bias + k * bias_k + n * bias_n, mask=n_inside, other=0.0).to(tl.float32)
        total += shift[None, :]
    y_ptr = y + b * y_b + (row_h * y_h + row_w * y_w)[:, None] + (n * y_c)[None, :]
    tl.store(y_ptr, total.to(y.dtype.element_ty), mask=row_inside[:, None] & n_inside[None, :])


@triton.jit
def product_gradient_kernel(
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
    inputs,
    outputs,
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
    bank_n,
    bank_c,
    bank_h,
    bank_w,
    routing_b,
    routing_k,
    EXPERTS: tl.constexpr,
    EXPERTS_PADDED: tl.constexpr,
    TAPS_H: tl.constexpr,
    TAPS_W: tl.constexpr,
    NEED_BANK: tl.constexpr,
    NEED_ROUTING: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """A tile of the kernel at one tap, over one part of the batch.

    For every example: its kernel's gradient ``G = sum over positions of gradient x input``, a matrix product; then
    ``of_bank[part, k] += routing[b, k] * G`` in registers, and ``of_routing[tile, b, k] = <G, bank[k]>``.
    """
    program = tl.program_id(0)
    depth_tiles = tl.cdiv(inputs, DEPTH)
    column_tiles = tl.cdiv(outputs, COLUMNS)
    kernel_tiles = depth_tiles * column_tiles * TAPS_H * TAPS_W
    tile = program % kernel_tiles
    this_part = program // kernel_tiles
    c = (tile % depth_tiles) * DEPTH + tl.arange(0, DEPTH)
    n = ((tile // depth_tiles) % column_tiles) * COLUMNS + tl.arange(0, COLUMNS)
    tap = tile // (depth_tiles * column_tiles)
    tap_h = tap // TAPS_W
    tap_w = tap % TAPS_W
    k, k_inside = expert_ids(EXPERTS, EXPERTS_PADDED)
    kernel_mask = (n < outputs)[:, None] & (c < inputs)[None, :]
    expert_mask = k_inside[:, None, None] & kernel_mask[None, :, :]
    if NEED_ROUTING:
        bank_ptr = bank + tap_h * bank_h + tap_w * bank_w + (n * bank_n)[:, None] + (c * bank_c)[None, :]
        experts = tl.load(bank_ptr[None, :, :] + (k * bank_k)[:, None, None], mask=expert_mask, other=0.0)
    if NEED_BANK:
        total = tl.zeros((EXPERTS_PADDED, COLUMNS, DEPTH), dtype=tl.float32)
    for example in range(this_part * part, tl.minimum(this_part * part + part, batch)):
        b = tl.cast(example, tl.int64)
        of_kernel = tl.zeros((COLUMNS, DEPTH), dtype=tl.float32)
        for start in range(0, rows, ROWS):
            row = start + tl.arange(0, ROWS)
            row_h = row // row_width
            row_w = row % row_width
            source_h, inside_h = source_index(row_h, tap_h, stride_h, padding_h, dilation_h, x_height, False)
            source_w, inside_w = source_index(row_w, tap_w, stride_w, padding_w, dilation_w, x_width, False)
            inside = (row < rows) & inside_h & inside_w
            up_ptr = gradient + b * gradient_b + (n * gradient_c)[:, None]
            up_ptr = up_ptr + (row_h * gradient_h + row_w * gradient_w)[None, :]
            up = tl.load(up_ptr, mask=(n < outputs)[:, None] & inside[None, :], other=0.0)
            x_ptr = x + b * x_b + (source_h * x_h + source_w * x_w)[:, None] + (c * x_c)[None, :]
            values = tl.load(x_ptr, mask=inside[:, None] & (c < inputs)[None, :], other=0.0)
            of_kernel = add_product(up, values, of_kernel, PRECISION, WIDEN)
        if NEED_BANK:
            weights = tl.load(routing + b * routing_b + k * routing_k, mask=k_inside, other=0.0).to(tl.float32)
            total += weights[:, None, None] * of_kernel[None, :, :]
        if NEED_ROUTING:
            agreement = tl.sum(tl.sum(experts.to(tl.float32) * of_kernel[None, :, :], axis=2), axis=1)
            tl.store(of_routing + (tl.cast(tile, tl.int64) * batch + b) * EXPERTS + k, agreement, mask=k_inside)
    if NEED_BANK:
        # Layout of of_bank: parts, experts, taps, outputs, inputs; contiguous.
        kernel_offsets = (tap * outputs + n)[:, None] * inputs + c[None, :]
        plane = outputs * inputs * (TAPS_H * TAPS_W)
        first = tl.cast(this_part, tl.int64) * EXPERTS * plane
        tl.store(of_bank + first + (k * plane)[:, None, None] + kernel_offsets[None, :, :], total, mask=expert_mask)


def forward(x: Tensor, bank: Tensor, routing: Tensor, bias: Tensor | None, y: Tensor, move: Move) -> Launch:
    """Fill ``y``: ``(B, C, H, W), (K, N, C, kh, kw), (B, K), (K, N) -> (B, N, H', W')``."""
    return _launch(x, bank, routing, bias, y, move, transposed=False)


def input_gradient(gradient: Tensor, bank: Tensor, routing: Tensor, of_x: Tensor, move: Move) -> Launch:
    """Fill ``of_x`` ``(B, C, H, W)``: the same product with input and output channels of the kernel exchanged."""
    return _launch(gradient, bank.transpose(1, 2), routing, None, of_x, move, transposed=True)


def _launch(
    x: Tensor, bank: Tensor, routing: Tensor, bias: Tensor | None, y: Tensor, move: Move, *, transposed: bool
) -> Launch:
    batch, outputs, height, width = y.shape
    inputs, rows = x.shape[1], height * width
    half = x.dtype != torch.float32
    tile = tiles.product(batch, rows, outputs, inputs, half)
    arguments = {
        **{"x": x, "bank": bank, "routing": routing, "bias": bank if bias is None else bias, "y": y},
        **{"rows": rows, "row_width": width, "inputs": inputs, "outputs": outputs},
        **{"x_height": x.shape[2], "x_width": x.shape[3]},
        **move.arguments(),
        **strides("x", x, "bchw"),
        **strides("y", y, "bchw"),
        **strides("bank", bank, "knchw"),
        **strides("routing", routing, "bk"),
        **({"bias_k": 0, "bias_n": 0} if bias is None else strides("bias", bias, "kn")),
        **{"EXPERTS": bank.shape[0], "TAPS_H": bank.shape[3], "TAPS_W": bank.shape[4]},
        **{"HAS_BIAS": bias is not None, "TRANSPOSED": transposed},
        **{"PRECISION": precision(x), "WIDEN": x.dtype == torch.bfloat16 and x.device.type == "cpu"},
        **{"ROWS": tile.rows, "COLUMNS": tile.columns, "DEPTH": tile.depth},
    }
    programs = batch * ceil_div(rows, tile.rows) * ceil_div(outputs, tile.columns)
    warps = 8 if tile.rows * tile.columns >= 4096 or not half else 4
    return Launch(product_kernel, programs, arguments, warps, stages=3 if half else 2)


def bank_gradient(
    gradient: Tensor, x: Tensor, bank: Tensor, routing: Tensor, move: Move, need_bank: bool, need_routing: bool
) -> tuple[Launch, Tensor, Tensor]:
    """The launch and what it fills: ``(parts, K, kh, kw, N, C)`` and ``(tiles, B, K)``, to be summed over the first."""
    batch, outputs, height, width = gradient.shape
    experts, _, inputs, taps_h, taps_w = bank.shape
    rows = height * width
    tile = tiles.product_gradient(experts, rows, outputs, inputs, x.dtype != torch.float32)
    kernel_tiles = ceil_div(outputs, tile.columns) * ceil_div(inputs, tile.depth) * taps_h * taps_w
    parts = tiles.splits(batch, kernel_tiles)
    of_bank = workspace(x, parts, experts, taps_h, taps_w, outputs, inputs, needed=need_bank)
    of_routing = workspace(x, kernel_tiles, batch, experts, needed=need_routing)
    arguments = {
        **{"gradient": gradient, "x": x, "bank": bank, "routing": routing},
        **{"of_bank": of_bank, "of_routing": of_routing, "batch": batch, "part": ceil_div(batch, parts)},
        **{"rows": rows, "row_width": width, "inputs": inputs, "outputs": outputs},
        **{"x_height": x.shape[2], "x_width": x.shape[3]},
        **move.arguments(),
        **strides("gradient", gradient, "bchw"),
        **strides("x", x, "bchw"),
        **strides("bank", bank, "knchw"),
        **strides("routing", routing, "bk"),
        **{"EXPERTS": experts, "EXPERTS_PADDED": tiles.power_of_two(experts), "TAPS_H": taps_h, "TAPS_W": taps_w},
        **{"NEED_BANK": need_bank, "NEED_ROUTING": need_routing},
        **{"PRECISION": precision(x), "WIDEN": x.dtype == torch.bfloat16 and x.device.type == "cpu"},
        **{"ROWS": tile.rows, "COLUMNS": tile.columns, "DEPTH": tile.depth},
    }
    launch = Launch(product_gradient_kernel, kernel_tiles * parts, arguments, warps=8, stages=2)
    return launch, of_bank, of_routing


def precision(x: Tensor) -> str:
    """Float32 products in full, unless torch's own were allowed to use TF32 (`set_float32_matmul_precision`)."""
    allowed = x.dtype == torch.float32 and torch.backends.cuda.matmul.fp32_precision == "tf32"
    return "tf32" if allowed else "ieee"
