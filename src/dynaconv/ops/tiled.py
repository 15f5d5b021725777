"""Strategy ``tiled``: dense layers over images on a CPU, in channels_last, by kernels of our own (``native``).

Elsewhere every example's kernel is written to memory, packed by the library that multiplies, and read again; so is its
gradient in training. Here a block of a kernel is mixed into the cache, multiplied there and forgotten, and a block of
its gradient is shared out to the bank and the routing weights before it leaves the cache. No mixed kernel is kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dynaconv.kernels.cpu import convolve, positions
from dynaconv.ops import grouped, own
from dynaconv.ops.call import Call
from dynaconv.ops.geometry import Geometry
from dynaconv.ops.ordinary import mixed_biases, mixed_kernels


def refuses(call: Call) -> str | None:
    geometry = call.geometry
    if geometry.dims != 2 or geometry.transposed or geometry.groups != 1:
        return "it is for convolutions over images, in one group"
    return own.refuses(call)


def run(x: Tensor, bank: Tensor, routing: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Lay the bank out as it is read, then mix and multiply block by block."""
    y: Tensor = _Tiled.apply(x, bank, routing.float(), mixed_biases(bias, routing), geometry)
    return y


class _Tiled(torch.autograd.Function):
    """The mixing and the convolution; a gradient of its gradient is found by way of ``grouped``."""

    @staticmethod
    def forward(x: Tensor, bank: Tensor, routing: Tensor, biases: Tensor | None, geometry: Geometry) -> Tensor:
        where = positions.positions(*_shape(x, bank, geometry))
        biases = None if biases is None else biases.contiguous()
        return convolve.convolve(x, convolve.to_panels(bank), routing, biases, bank.shape[1], where)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, bank, routing, _, ctx.geometry = inputs
        ctx.save_for_backward(x, bank, routing)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, bank, routing = ctx.saved_tensors
        need_x, need_bank, need_routing, need_biases = ctx.needs_input_grad[:4]
        of_biases = gradient.sum(dim=(2, 3)) if need_biases else None
        if torch.is_grad_enabled():  # a gradient of this gradient is wanted
            y = grouped.convolve(x, mixed_kernels(bank, routing), None, ctx.geometry)
            return (*own.differentiable_gradients(y, (x, bank, routing), gradient), of_biases, None)
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        shape = _shape(x, bank, ctx.geometry)
        of_x = of_bank = of_routing = None
        if need_x:
            turned = convolve.to_panels(bank, transposed=True)
            of_x = convolve.convolve(gradient, turned, routing, None, x.shape[1], positions.backward(*shape))
        if need_bank or need_routing:
            where = positions.positions(*shape)
            of_panels, of_routing = convolve.gradients(gradient, x, convolve.to_panels(bank), routing, where)
            of_bank = convolve.from_panels(of_panels, bank.shape) if need_bank else None
        return of_x, of_bank, of_routing, of_biases, None


def _shape(x: Tensor, bank: Tensor, geometry: Geometry) -> tuple[Any, ...]:
    return tuple(x.shape[2:]), tuple(bank.shape[3:]), geometry.stride, geometry.padding, geometry.dilation
