"""Strategy ``stencil``: depthwise layers by the kernels of :mod:`dynaconv.kernels.cpu`, in channels_last.

torch has no convolution with a kernel per example: ``grouped`` must bring the batch and the channels together, which
undoes channels_last, and ``loop`` calls torch for each example and copies the outputs together. A depthwise convolution
is a few multiply-adds per number that is read, so that those copies cost more than the convolution.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dynaconv.kernels.cpu import depthwise
from dynaconv.ops import grouped, own
from dynaconv.ops.call import Call
from dynaconv.ops.geometry import Geometry
from dynaconv.ops.ordinary import mixed_biases, mixed_kernels


def refuses(call: Call) -> str | None:
    geometry = call.geometry
    if not call.depthwise or geometry.dims != 2 or geometry.transposed or call.bank_shape[1] != geometry.groups:
        return "it is for depthwise convolutions over images, as many channels out as in"
    return own.refuses(call)


def run(x: Tensor, bank: Tensor, routing: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Mix the kernels, which are small, then one pass over the maps."""
    y: Tensor = _Stencil.apply(x, mixed_kernels(bank, routing), mixed_biases(bias, routing), geometry)
    return y


class _Stencil(torch.autograd.Function):
    """The convolution with one kernel per example; a gradient of its gradient is found by way of ``grouped``."""

    @staticmethod
    def forward(x: Tensor, kernels: Tensor, biases: Tensor | None, geometry: Geometry) -> Tensor:
        moves = geometry.stride, geometry.padding, geometry.dilation
        return depthwise.depthwise(x, depthwise.taps_of(kernels), kernels.shape[3:], biases, *moves)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, kernels, _, ctx.geometry = inputs
        ctx.save_for_backward(x, kernels)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, kernels = ctx.saved_tensors
        need_x, need_kernels, need_biases = ctx.needs_input_grad[:3]
        of_biases = gradient.sum(dim=(2, 3)) if need_biases else None
        if torch.is_grad_enabled():  # a gradient of this gradient is wanted
            y = grouped.convolve(x, kernels, None, ctx.geometry)
            return (*own.differentiable_gradients(y, (x, kernels), gradient), of_biases, None)
        of_x = of_kernels = None
        kernel = kernels.shape[3:]
        moves = ctx.geometry.stride, ctx.geometry.padding, ctx.geometry.dilation
        if need_x:
            of_x = depthwise.input_gradient(gradient, x.shape, depthwise.taps_of(kernels), kernel, *moves)
        if need_kernels:
            of_taps = depthwise.kernel_gradient(gradient, x, kernel, *moves)
            of_kernels = of_taps.transpose(1, 2).reshape(kernels.shape)
        return of_x, of_kernels, of_biases, None
