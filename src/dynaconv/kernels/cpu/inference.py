"""What a frozen network needs beside its layers: mixing of reduced banks, routers, and the sums that they read."""

from __future__ import annotations

import torch
from torch import Tensor

from dynaconv.kernels.cpu.arguments import KINDS, at, work
from dynaconv.kernels.cpu.build import library


def channel_sums(x: Tensor) -> Tensor:
    """``(B, C, H, W)`` float32 in channels_last ``-> (B, C)``, sums over space."""
    batch, channels, height, width = x.shape
    sums = torch.zeros(batch, channels, dtype=torch.float32)
    slabs, threads = work(batch, channels)
    library().channel_sums(batch, height * width, channels, slabs, threads, at(sums), at(x))
    return sums


def route(
    sums: Tensor,
    pixels: int,
    hidden: tuple[Tensor, Tensor | None] | None,
    last: tuple[Tensor, Tensor | None],
    softmax: bool,
) -> Tensor:
    """Routing weights ``(B, K)`` from ``(B, C)`` sums over ``pixels``, for a batch of few examples.

    ``hidden`` and ``last`` are a linear layer's weight and bias; see :class:`dynaconv.routing.PooledRouter`.
    """
    (batch, channels), experts = sums.shape, last[0].shape[0]
    width = 0 if hidden is None else hidden[0].shape[0]
    first_weight, first_bias = (None, None) if hidden is None else hidden
    out = torch.empty(batch, experts, dtype=torch.float32)
    scratch = torch.empty(width, dtype=torch.float32)
    sizes = batch, channels, width, experts, int(softmax)
    library().route(
        *sizes,
        1 / pixels,
        at(sums),
        at(first_weight),
        at(first_bias),
        at(last[0]),
        at(last[1]),
        at(scratch),
        at(out),
    )
    return out


def mix(bank: Tensor, scale: Tensor | None, routing: Tensor) -> Tensor:
    """``(K, rows, columns), (B, K) -> (B, rows, columns)`` float32, from a float32, bfloat16 or int8 bank.

    ``scale`` of an int8 bank is ``(K, 1, columns)`` or ``(K, rows, 1)``.
    """
    experts, rows, columns = bank.shape
    batch = routing.shape[0]
    out = torch.empty(batch, rows, columns, dtype=torch.float32)
    weights = routing.contiguous()
    by_column = int(scale is not None and scale.shape[2] != 1)
    sizes = batch, experts, rows, columns, by_column, torch.get_num_threads()
    library().mix(KINDS[bank.dtype], *sizes, at(weights), at(bank), at(scale), at(out))
    return out
