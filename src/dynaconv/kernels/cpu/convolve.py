"""Dense convolution of every example with its own mixed kernel, in channels_last, and its gradients.

A bank is read as ``panels``: ``(K, ceil(out / 32), taps * in, 32)``, the last panel filled up with zeros.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dynaconv.kernels.cpu.activation import NOTHING, Activation
from dynaconv.kernels.cpu.arguments import KINDS, Bank, Convolution, Lie, at, channels_last, follow
from dynaconv.kernels.cpu.build import library
from dynaconv.kernels.cpu.positions import Positions

PANEL = 32


def convolve(
    x: Tensor,
    panels: Tensor,
    routing: Tensor,
    bias: Tensor | None,
    outputs: int,
    positions: Positions,
    *,
    scale: Tensor | None = None,
    activation: Activation = NOTHING,
    sums: Tensor | None = None,
) -> Tensor:
    """``y[b] = activation(conv(x[b], sum_k routing[b, k] * bank[k]) + bias[b])``.

    Args:
        x: ``(B, C, H, W)`` float32 on the CPU, contiguous as channels_last.
        panels: the bank, float32, bfloat16 or int8; see the module's docstring.
        routing: ``(B, K)`` float32.
        bias: ``(B, outputs)`` float32, or ``(outputs,)`` for all examples, or None; dense.
        outputs: output channels.
        positions: which input pixels are read.
        scale: ``(K, ceil(outputs / 32), 1, 32)`` of an int8 bank.
        activation: what is done to the output.
        sums: ``(B, outputs)`` float32, zeros: the output's sums over space are added to it.

    Returns:
        ``(B, outputs, H', W')`` in channels_last.
    """
    y = channels_last((x.shape[0], outputs, *positions.size))
    routing = routing.contiguous()
    shape, bank = _convolution(x, panels, outputs, positions), Bank(KINDS[panels.dtype], at(panels), at(scale))
    library().convolve(
        ctypes.byref(shape),
        ctypes.byref(bank),
        torch.get_num_threads(),
        at(routing),
        follow(bias, activation, sums),
        at(x),
        at(y),
    )
    return y


def gradients(
    gradient: Tensor, x: Tensor, panels: Tensor, routing: Tensor, positions: Positions
) -> tuple[Tensor, Tensor]:
    """Gradients of the bank, in panels, and of the routing weights, for ``gradient`` of the output (channels_last)."""
    routing = routing.contiguous()
    of_bank, of_routing = torch.empty_like(panels), torch.empty_like(routing)
    shape, threads = _convolution(x, panels, gradient.shape[1], positions), torch.get_num_threads()
    library().convolve_gradient(
        *(ctypes.byref(shape), threads, at(panels), at(routing), at(x), at(gradient), at(of_bank), at(of_routing))
    )
    return of_bank, of_routing


def to_panels(bank: Tensor, transposed: bool = False) -> Tensor:
    """``(K, out, in, *taps)`` float32 ``->`` panels; ``transposed``: input and output channels change places."""
    bank = bank.contiguous()
    experts, out, inputs = bank.shape[:3]
    taps = math.prod(bank.shape[3:])
    columns, channels = (inputs, out) if transposed else (out, inputs)
    panels = torch.empty(experts, -(-columns // PANEL), taps * channels, PANEL, dtype=torch.float32)
    lie = _lie(bank.shape, transposed)
    library().panels(0, ctypes.byref(lie), torch.get_num_threads(), at(bank), at(panels))
    return panels


def from_panels(panels: Tensor, shape: Sequence[int]) -> Tensor:
    """Panels ``->`` a bank of ``shape`` ``(K, out, in, *taps)``."""
    bank = torch.empty(tuple(shape), dtype=torch.float32)
    lie = _lie(shape, transposed=False)
    library().panels(1, ctypes.byref(lie), torch.get_num_threads(), at(bank), at(panels))
    return bank


def _lie(shape: Sequence[int], transposed: bool) -> Lie:
    experts, out, inputs, *space = shape
    taps = math.prod(space)
    sides = (out, inputs * taps), (inputs, taps)
    (columns, column_step), (channels, channel_step) = reversed(sides) if transposed else sides
    return Lie(experts, columns, channels, taps, out * inputs * taps, column_step, channel_step)


def _convolution(x: Tensor, panels: Tensor, outputs: int, positions: Positions) -> Convolution:
    batch, inputs, height, width = x.shape
    taps = panels.shape[2] // inputs
    sizes = batch, panels.shape[0], inputs, outputs, taps, height * width, math.prod(positions.size)
    return Convolution(*sizes, at(positions.reads), at(positions.writes))
