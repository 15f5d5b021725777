"""The same computations by torch's operations: used for second derivatives and for batched gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

Sizes = Sequence[int]


def convolve_each(
    x: Tensor, kernels: Tensor, biases: Tensor | None, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int
) -> Tensor:
    """Every image with its own kernel, as one convolution with ``B * groups`` groups.

    ``(B, in, H, W), (B, out, in/groups, kh, kw), (B, out) -> (B, out, H', W')``
    """
    batch = x.shape[0]
    folded, flat = x.reshape(1, -1, *x.shape[2:]), None if biases is None else biases.flatten()
    y = F.conv2d(folded, kernels.flatten(0, 1), flat, stride, padding, dilation, batch * groups)
    return y.reshape(batch, -1, *y.shape[2:])


def mix_conv2d(
    x: Tensor,
    bank: Tensor,
    routing: Tensor,
    bias: Tensor | None,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    groups: int,
) -> Tensor:
    """:func:`convolve_each` with the kernels ``sum_k routing[b, k] * bank[k]``, ``bias`` ``(K, out)`` likewise."""
    kernels = (routing.to(bank.dtype) @ bank.flatten(1)).unflatten(1, bank.shape[1:])
    biases = None if bias is None else routing.to(bias.dtype) @ bias
    return convolve_each(x, kernels, biases, stride, padding, dilation, groups)


def gradients(
    function: Callable[..., Tensor], inputs: Sequence[Tensor | None], needed: Sequence[bool], gradient: Tensor
) -> list[Tensor | None]:
    """Gradients of ``function(*inputs)`` by torch: differentiable again where gradients are enabled.

    Args:
        function: a function of tensors that calls torch's operations only.
        inputs: tensors or None.
        needed: for every input whether its gradient is needed.
        gradient: of the function's output.

    Returns:
        One gradient per input, None where none is needed.
    """
    again = torch.is_grad_enabled()
    with torch.enable_grad(), torch.autocast(gradient.device.type, enabled=False):
        # Aliases: one input may be computed from another (the routing from x). The caller differentiates that path.
        aliases = [None if value is None else value.view_as(value) for value in inputs]
        wanted = [alias for alias, need in zip(aliases, needed, strict=True) if need and alias is not None]
        found = iter(torch.autograd.grad(function(*aliases), wanted, gradient, create_graph=again))
    return [next(found) if need and value is not None else None for value, need in zip(inputs, needed, strict=True)]


def output_size(size: Sizes, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes) -> tuple[int, int]:
    """Height and width of a convolution's output over ``size`` (the formula of ``torch.nn.Conv2d``)."""
    height, width = (
        (extent + 2 * pad - spread * (taps - 1) - 1) // step + 1
        for extent, taps, step, pad, spread in zip(size, kernel, stride, padding, dilation, strict=True)
    )
    return height, width
