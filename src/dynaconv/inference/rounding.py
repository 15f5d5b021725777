"""Whether a frozen network differs from its original by rounding alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dynaconv.inference.comparison import Difference, compare

# Folding changes the rounding of every layer. The error of a wrong fold is about as large as the outputs.
BOUNDS = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 0.2}
MOST_OF_OWN = 4.0
"""A frozen network may be so many times as far from the exact outputs as the network itself."""


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
    own = None if dtype == torch.float64 else _error_of_its_own(expected, actual, original, inputs, fold)
    if own is None:
        raise RuntimeError(
            f"freezing would change the outputs: by {found.error:.1e} of the largest one in {found.where}, more than "
            f"rounding in {dtype} ({bound:.0e}; infinite where one of the two is no finite number). A network that "
            "decides by its values, or reads its layers' parameters itself, cannot be frozen"
        )
    return own


def _error_of_its_own(
    expected: Any, actual: Any, original: nn.Module, inputs: Tensor, fold: Callable[[nn.Module], nn.Module]
) -> float | None:
    """The network's error against float64; None if the frozen network's cannot be explained by it."""
    double = copy.deepcopy(original).double()
    exact_inputs = inputs.double() if inputs.is_floating_point() else inputs
    try:
        with torch.no_grad():
            exact = double(exact_inputs)
            folded = fold(double)(exact_inputs)
    except Exception:  # a network may be written for one precision only
        return None
    own = compare(exact, expected).error
    same = compare(exact, folded).error <= BOUNDS[torch.float64]
    return own if same and compare(exact, actual).error <= MOST_OF_OWN * own else None
