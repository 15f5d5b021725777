"""Batch norm as a scale and a shift per channel, folded into the convolution before it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dynaconv.kernels.cpu.activation import RELU, Activation


class Affine(NamedTuple):
    """``y * scale + shift`` per output channel; both ``(out,)`` in float64."""

    scale: Tensor
    shift: Tensor


def affine_of(norm: Any) -> Affine:
    """``scale = weight / sqrt(var + eps)``, ``shift = bias - mean * scale``."""
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    scale = (variance + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -mean * scale
    return Affine(scale, shift if norm.bias is None else shift + norm.bias.detach().double())


def after_norm(norm: nn.Module) -> nn.Module:
    """What remains of a norm once it is folded: its activation, where it carries one."""
    activation = getattr(norm, "act", None)
    return activation if isinstance(activation, nn.Module) else nn.Identity()


def activation_of(module: nn.Module) -> Activation | None:
    """A module that a frozen layer can do itself, as the layer takes it; None for any other."""
    if type(module) is nn.ReLU:
        return RELU
    if isinstance(module, nn.Hardtanh) and type(module) in (nn.ReLU6, nn.Hardtanh):
        return Activation(low=float(module.min_val), high=float(module.max_val))
    return {nn.SiLU: Activation("silu"), nn.Hardswish: Activation("hardswish")}.get(type(module))


def fold_static(convolution: Any, affine: Affine) -> None:
    """Scale the kernel and shift the bias of an ordinary layer in place."""
    weight = convolution.weight.detach().double()
    scaled = weight * along_output(affine.scale, weight, convolution)
    bias = 0.0 if convolution.bias is None else convolution.bias.detach().double() * affine.scale
    dtype, training = convolution.weight.dtype, convolution.weight.requires_grad
    convolution.weight = nn.Parameter(scaled.to(dtype), requires_grad=training)
    convolution.bias = nn.Parameter((bias + affine.shift).to(dtype), requires_grad=training)


def along_output(values: Tensor, kernels: Tensor, convolution: Any, leading: int = 0) -> Tensor:
    """``values`` ``(out,)`` shaped to multiply ``kernels``, which have ``leading`` dimensions before the kernel's own.

    The output channels are a kernel's first dimension; a transposed convolution's are its second, group by group.
    """
    if not getattr(convolution, "transposed", False):
        return values.reshape(-1, *(1,) * (kernels.dim() - leading - 1))
    groups, taps = convolution.groups, kernels.dim() - leading - 2
    inputs = kernels.shape[leading]
    per_input = values.reshape(groups, 1, -1).expand(groups, inputs // groups, -1)
    return per_input.reshape(inputs, -1, *(1,) * taps)


def unit(out: int, device: torch.device) -> Affine:
    """The affine map that changes nothing."""
    return Affine(
        torch.ones(out, dtype=torch.float64, device=device), torch.zeros(out, dtype=torch.float64, device=device)
    )
