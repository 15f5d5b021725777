"""Whether a frozen network differs from its original by rounding alone."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dynaconv.inference.comparison import Difference, compare

# Folding changes the rounding of every layer. The error of a wrong fold is about as large as the outputs.
BOUNDS = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 0.2}
AMPLIFIED = 1e-6
"""The bound in float64 of a network that amplifies rounding; it would amplify a wrong fold too, far above this."""
MOST_OF_OWN = 10.0
"""A frozen network may be so many times as far from the exact outputs as the network itself."""
NUDGED = 4
"""Inputs from which the network's own error is taken. One alone may be right by luck."""

REASON = "A network that decides by its values, or reads its layers' parameters itself, cannot be frozen"


def check_rounding(
    found: Difference,
    expected: Any,
    actual: Any,
    original: nn.Module,
    inputs: Tensor,
    fold: Callable[[nn.Module], nn.Module],
) -> float | None:
    """Check that folding alone, with the bank in full precision, changes nothing but roundings.

    A network may amplify rounding: one with steep routers whose batch norms have no statistics yet, for instance. So
    where the difference is above the bound, both are computed in float64. Folding is right if it changes nothing
    there, and if the frozen network is about as near to those exact outputs as the network itself.

    Args:
        found: the difference of the two outputs.
        expected, actual: the outputs of the network and of the frozen one.
        original: the network, in evaluation mode; it is not changed.
        inputs: what both were given.
        fold: freezes a network in place, and returns it.

    Returns:
        The error of the network itself against float64 where it had to be asked, else None.

    Raises:
        RuntimeError: they differ by more.
    """
    dtype = next((tensor.dtype for tensor in original.parameters() if tensor.is_floating_point()), torch.float32)
    bound = BOUNDS.get(dtype, 1e-3)
    if found.error <= bound:
        return None
    told = (
        f"freezing would change the outputs: by {found.error:.1e} of the largest one in {found.where}, more than "
        f"rounding in {dtype} ({bound:.0e}; infinite where one of the two is no finite number)"
    )
    if dtype == torch.float64:
        raise RuntimeError(f"{told}. {REASON}")
    try:
        exact, folded = _in_double(original, inputs, fold)
        own, amplified = _own_error(exact, expected, original, inputs), compare(exact, folded).error
    except Exception as error:  # a network or a device may know one precision only
        raise RuntimeError(f"{told}. {REASON}. (It did not run in float64, which would tell: {error})") from error
    here = compare(exact, actual).error
    if not amplified <= AMPLIFIED:
        raise RuntimeError(f"{told}. In float64 it would change them by {amplified:.1e}. {REASON}")
    if not (math.isfinite(own) and here <= MOST_OF_OWN * own):
        raise RuntimeError(
            f"{told}. In float64 it changes nothing, but in {dtype} the frozen network's outputs are {here:.1e} away "
            f"from those of float64, and the network's own {own:.1e}"
        )
    return own


def _in_double(original: nn.Module, inputs: Tensor, fold: Callable[[nn.Module], nn.Module]) -> tuple[Any, Any]:
    """The outputs of the network and of the frozen one in float64."""
    double = copy.deepcopy(original).double()
    exact_inputs = inputs.double() if inputs.is_floating_point() else inputs
    with torch.no_grad():
        return double(exact_inputs), fold(double)(exact_inputs)


def _own_error(exact: Any, expected: Any, original: nn.Module, inputs: Tensor) -> float:
    """The largest error of the network itself, on the inputs and on some that are rounded another way."""
    errors = [compare(exact, expected).error]
    if inputs.is_floating_point():
        generator = torch.Generator().manual_seed(0)
        step = torch.finfo(inputs.dtype).eps
        for _ in range(NUDGED - 1):
            signs = torch.randint(-1, 2, inputs.shape, generator=generator, device="cpu").to(inputs)
            with torch.no_grad():
                errors.append(compare(exact, original(inputs * (1 + step * signs))).error)
    return max(errors)
