"""The two operations: every example convolved with its own kernel, given or mixed from a bank."""

from __future__ import annotations

import torch
from torch import Tensor

from dynaconv.ops.call import Call, autocast_dtype
from dynaconv.ops.convolution import convolve
from dynaconv.ops.geometry import Geometry, resolve_padding
from dynaconv.ops.plan import Plan, check_choice, choose, plan
from dynaconv.ops.reference import reference, reference_each
from dynaconv.ops.strategies import STRATEGIES
from dynaconv.torch_private import as_no_view

EMPTY = "the batch is empty"


def mix(
    x: Tensor, bank: Tensor, routing: Tensor, bias: Tensor | None = None, *, geometry: Geometry, strategy: str = "auto"
) -> Tensor:
    """Convolve every example with its own mixture of the bank's experts.

    Formula (Yang et al. 2019, section 3; Chen et al. 2020, eq. 1)::

        y[b] = conv(x[b], sum_k routing[b, k] * bank[k]) + sum_k routing[b, k] * bias[k]

    Args:
        x: ``(B, in, *space)``; for a linear layer (``geometry.dims == 0``) ``(B, *, in)``.
        bank: ``(K, out, in/groups, *kernel)``; transposed ``(K, in, out/groups, *kernel)``; linear ``(K, out, in)``.
        routing: ``(B, K)``; of any floating dtype, it is converted to the bank's.
        bias: ``(K, out)`` or None.
        geometry: stride, padding, dilation, groups ...; see :class:`Geometry`.
        strategy: ``"auto"``, or the name of one strategy, which is obeyed or raises.

    Returns:
        ``(B, out, *output space)``; linear ``(B, *, out)``. All strategies are equal up to rounding. An empty batch
        gives an empty output.

    Raises:
        ValueError: shapes that do not fit, an unknown strategy, or an explicit one that cannot run this call.
        TypeError: dtypes of input, bank and bias that differ without autocast.
    """
    check_mix(x, bank, routing, bias, geometry)
    if x.shape[0] == 0 or strategy == "reference":
        check_choice(strategy)
        return reference(x, bank, routing, bias, geometry)
    x, plain = resolve_padding(x, _kernel(bank, geometry), geometry)
    call = Call.of(x, bank, routing, plain)
    return _own_memory(STRATEGIES[choose(call, strategy)].run_mix(x, bank, routing, bias, plain), call)


def convolve_each(
    x: Tensor, kernels: Tensor, bias: Tensor | None = None, *, geometry: Geometry, strategy: str = "auto"
) -> Tensor:
    """Convolve every example with its own, given kernel: ``y[b] = conv(x[b], kernels[b]) + bias[b]``.

    Args:
        x: as :func:`mix`.
        kernels: ``(B, out, in/groups, *kernel)``, one for each example; transposed and linear as in :func:`mix`.
        bias: ``(B, out)`` or None.
        geometry, strategy: as :func:`mix`.

    Returns and raises as :func:`mix`; strategies that mix the kernels themselves refuse this operation.
    """
    check_each(x, kernels, bias, geometry)
    if x.shape[0] == 0:
        check_choice(strategy)
        kernel, summed_bias = kernels.sum(dim=0), None if bias is None else bias.sum(dim=0)  # zeros, with gradients
        return convolve(*_resolved(x, kernel, summed_bias, geometry))
    if strategy == "reference":
        return reference_each(x, kernels, bias, geometry)
    x, plain = resolve_padding(x, _kernel(kernels, geometry), geometry)
    call = Call.of(x, kernels, None, plain)
    run = STRATEGIES[choose(call, strategy)].convolve_each
    assert run is not None, "such a strategy refuses the call"
    return _own_memory(run(x, kernels, bias, plain), call)


def _own_memory(y: Tensor, call: Call) -> Tensor:
    """The output as a tensor that is no view where gradients are not recorded, as ``nn.Conv2d`` returns one.

    A view that was made with gradients may be changed in place, and graphs need no such thing.
    """
    if torch.is_grad_enabled() or call.compiling or call.exporting or not call.plain:
        return y
    return as_no_view(y)


def plan_of(x: Tensor, bank: Tensor, routing: Tensor, *, geometry: Geometry, strategy: str = "auto") -> Plan:
    """The :class:`Plan` that :func:`mix` would follow for these arguments."""
    check_mix(x, bank, routing, None, geometry)
    if x.shape[0] == 0:
        check_choice(strategy)
        return Plan("reference", EMPTY, dict.fromkeys(STRATEGIES, EMPTY))
    x, plain = resolve_padding(x, _kernel(bank, geometry), geometry)
    return plan(Call.of(x, bank, routing, plain), strategy)


def _kernel(bank: Tensor, geometry: Geometry) -> tuple[int, ...]:
    return tuple(bank.shape[-geometry.dims :]) if geometry.dims else ()


def _resolved(
    x: Tensor, kernel: Tensor, bias: Tensor | None, geometry: Geometry
) -> tuple[Tensor, Tensor, Tensor | None, Geometry]:
    x, geometry = resolve_padding(x, kernel.shape[-geometry.dims :] if geometry.dims else (), geometry)
    return x, kernel, bias, geometry


def check_mix(x: Tensor, bank: Tensor, routing: Tensor, bias: Tensor | None, geometry: Geometry) -> None:
    """Raise ValueError or TypeError unless the shapes and dtypes fit; the message names the tensor."""
    outputs = _check_input(x, bank, geometry, "bank", "K")
    experts = bank.shape[0]
    if routing.dim() != 2 or routing.shape[0] != x.shape[0] or routing.shape[1] != experts:
        raise ValueError(
            f"routing weights have shape {tuple(routing.shape)}; expected ({x.shape[0]}, {experts}), (batch, experts)"
        )
    if not routing.is_floating_point():
        raise TypeError(f"routing weights are {routing.dtype}; expected a floating dtype, such as {bank.dtype}")
    if bias is not None and tuple(bias.shape) != (experts, outputs):
        raise ValueError(f"bias has shape {tuple(bias.shape)}; expected ({experts}, {outputs}), (experts, out)")
    _check_dtypes(x, bank, bias, "bank")


def check_each(x: Tensor, kernels: Tensor, bias: Tensor | None, geometry: Geometry) -> None:
    """As :func:`check_mix`, for kernels that are given."""
    outputs = _check_input(x, kernels, geometry, "kernels", "B")
    if kernels.shape[0] != x.shape[0]:
        raise ValueError(f"there are {kernels.shape[0]} kernels for {x.shape[0]} examples; expected one for each")
    if bias is not None and tuple(bias.shape) != (x.shape[0], outputs):
        raise ValueError(f"bias has shape {tuple(bias.shape)}; expected ({x.shape[0]}, {outputs}), (batch, out)")
    _check_dtypes(x, kernels, bias, "kernels")


def _check_input(x: Tensor, bank: Tensor, geometry: Geometry, name: str, first: str) -> int:
    """Check the input against the bank (or the kernels); return the number of output channels."""
    dims, groups = geometry.dims, geometry.groups
    if bank.dim() != dims + 3:
        raise ValueError(f"{name} has shape {tuple(bank.shape)}; expected {dims + 3} dimensions, ({first}, *kernel)")
    if dims == 0:
        inputs, outputs = bank.shape[2], bank.shape[1]
        if x.dim() < 2 or x.shape[-1] != inputs:
            raise ValueError(f"input has shape {tuple(x.shape)}; expected (batch, *, {inputs})")
        return outputs
    inputs, outputs = bank.shape[2] * groups, bank.shape[1]
    if geometry.transposed:
        inputs, outputs = outputs, inputs
    if x.dim() != dims + 2 or x.shape[1] != inputs:
        raise ValueError(f"input has shape {tuple(x.shape)}; expected (batch, {inputs}, {_axes(dims)})")
    if bank.shape[1] % groups:
        raise ValueError(f"{name} has shape {tuple(bank.shape)}; groups={groups} does not divide {bank.shape[1]}")
    return outputs


def _check_dtypes(x: Tensor, bank: Tensor, bias: Tensor | None, name: str) -> None:
    """All tensors must have one dtype, as in torch's convolution, unless autocast is on."""
    same = x.dtype == bank.dtype and (bias is None or bias.dtype == bank.dtype)
    if same or autocast_dtype(x.device.type) is not None:
        return
    beside = "" if bias is None else f" and bias is {bias.dtype}"
    raise TypeError(f"input is {x.dtype}, {name} is {bank.dtype}{beside}; convert one of them, or use torch.autocast")


def _axes(dims: int) -> str:
    return ", ".join(("depth", "height", "width")[3 - dims :]) if dims > 1 else "length"
