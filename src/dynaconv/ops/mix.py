"""The mixing operation: every example is convolved with its own mixture of the bank's experts."""

from __future__ import annotations

from torch import Tensor

from dynaconv.ops.call import Call
from dynaconv.ops.geometry import Geometry, resolve_padding
from dynaconv.ops.plan import STRATEGIES, Plan, check_choice, choose, plan
from dynaconv.ops.reference import reference


def mix(
    x: Tensor, bank: Tensor, routing: Tensor, bias: Tensor | None = None, *, geometry: Geometry, strategy: str = "auto"
) -> Tensor:
    """Convolve every example with its own kernel.

    Formula (Yang et al. 2019, section 3; Chen et al. 2020, eq. 1)::

        y[b] = conv(x[b], sum_k routing[b, k] * bank[k]) + sum_k routing[b, k] * bias[k]

    Args:
        x: ``(B, in, *space)``; for a linear layer (``geometry.dims == 0``) ``(B, *, in)``.
        bank: ``(K, out, in/groups, *kernel)``; transposed ``(K, in, out/groups, *kernel)``; linear ``(K, out, in)``.
        routing: ``(B, K)``.
        bias: ``(K, out)`` or None.
        geometry: stride, padding, dilation, groups ...; see :class:`Geometry`.
        strategy: ``"auto"``, or the name of one strategy, which is obeyed or raises.

    Returns:
        ``(B, out, *output space)``; linear ``(B, *, out)``. All strategies are equal up to rounding. An empty batch
        gives an empty output.

    Raises:
        ValueError: shapes that do not fit, an unknown strategy, or an explicit one that cannot run this call.
    """
    check_shapes(x, bank, routing, bias, geometry)
    if x.shape[0] == 0 or strategy == "reference":
        check_choice(strategy)
        return reference(x, bank, routing, bias, geometry)
    x, plain = resolve_padding(x, _kernel(bank, geometry), geometry)
    name = choose(Call.of(x, bank, routing, plain), strategy)
    return STRATEGIES[name].run(x, bank, routing, bias, plain)


def plan_of(x: Tensor, bank: Tensor, routing: Tensor, *, geometry: Geometry, strategy: str = "auto") -> Plan:
    """The :class:`Plan` that :func:`mix` would follow for these arguments."""
    check_shapes(x, bank, routing, None, geometry)
    if x.shape[0] == 0:
        check_choice(strategy)
        return Plan("reference", "the batch is empty", dict.fromkeys(STRATEGIES, "the batch is empty"))
    x, plain = resolve_padding(x, _kernel(bank, geometry), geometry)
    return plan(Call.of(x, bank, routing, plain), strategy)


def _kernel(bank: Tensor, geometry: Geometry) -> tuple[int, ...]:
    return tuple(bank.shape[-geometry.dims :]) if geometry.dims else ()


def check_shapes(x: Tensor, bank: Tensor, routing: Tensor, bias: Tensor | None, geometry: Geometry) -> None:
    """Raise ValueError, naming the tensor and both shapes, unless all fit together."""
    dims, groups = geometry.dims, geometry.groups
    if bank.dim() != dims + 3:
        raise ValueError(f"bank has shape {tuple(bank.shape)}; expected {dims + 3} dimensions, (K, *kernel)")
    experts = bank.shape[0]
    if dims == 0:
        inputs, outputs = bank.shape[2], bank.shape[1]
        if x.dim() < 2 or x.shape[-1] != inputs:
            raise ValueError(f"input has shape {tuple(x.shape)}; expected (batch, *, {inputs})")
    else:
        inputs, outputs = bank.shape[2] * groups, bank.shape[1]
        if geometry.transposed:
            inputs, outputs = outputs, inputs
        if x.dim() != dims + 2 or x.shape[1] != inputs:
            raise ValueError(f"input has shape {tuple(x.shape)}; expected (batch, {inputs}, {_axes(dims)})")
        if bank.shape[1] % groups:
            raise ValueError(f"bank has shape {tuple(bank.shape)}; groups={groups} does not divide {bank.shape[1]}")
    if routing.dim() != 2 or routing.shape[0] != x.shape[0] or routing.shape[1] != experts:
        raise ValueError(
            f"routing weights have shape {tuple(routing.shape)}; expected ({x.shape[0]}, {experts}), (batch, experts)"
        )
    if bias is not None and tuple(bias.shape) != (experts, outputs):
        raise ValueError(f"bias has shape {tuple(bias.shape)}; expected ({experts}, {outputs}), (experts, out)")


def _axes(dims: int) -> str:
    return ", ".join(("depth", "height", "width")[3 - dims :]) if dims > 1 else "length"
