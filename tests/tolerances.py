"""The one tolerance table: how near two computations of the same thing must be, by dtype.

The same here and in continuous integration. A test that needs more room says how much with ``scale``
(for example a sum over many terms), and why in a comment; it does not bring numbers of its own.
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class Tolerance(NamedTuple):
    """``|actual - expected| <= absolute + relative * |expected|``, as in ``torch.testing.assert_close``."""

    relative: float
    absolute: float


TOLERANCES: dict[torch.dtype, Tolerance] = {
    torch.float64: Tolerance(relative=1e-9, absolute=1e-10),
    torch.float32: Tolerance(relative=1e-4, absolute=2e-5),
    torch.float16: Tolerance(relative=5e-3, absolute=5e-3),
    torch.bfloat16: Tolerance(relative=4e-2, absolute=4e-2),
}


def assert_close(
    actual: torch.Tensor,
    expected: torch.Tensor,
    dtype: torch.dtype | None = None,
    scale: float = 1.0,
    what: str = "",
) -> None:
    """Assert that two tensors have one shape and agree within the table's tolerance times ``scale``.

    ``dtype`` is the precision in which the computation ran; by default the coarser of the two tensors' dtypes.
    Give it where the dtype of the result hides it: autocast runs in bfloat16 and may return float32.
    Tensors of different dtypes are compared in float64; a difference of shape or device is always an error.
    ``what`` names the compared thing in the message.
    """
    precision = dtype or coarser(actual.dtype, expected.dtype)
    if precision not in TOLERANCES:
        known = ", ".join(str(name) for name in TOLERANCES)
        raise KeyError(f"no tolerance for {precision}; the table in tests/tolerances.py has {known}")
    tolerance = TOLERANCES[precision]
    torch.testing.assert_close(
        actual.detach().to(torch.float64),
        expected.detach().to(torch.float64),
        rtol=tolerance.relative * scale,
        atol=tolerance.absolute * scale,
        msg=lambda message: f"{what or 'tensors'}, compared as {precision} with scale {scale:g}: {message}",
    )


def coarser(first: torch.dtype, second: torch.dtype) -> torch.dtype:
    """Return the dtype with the wider tolerance."""
    widths = {dtype: tolerance.absolute for dtype, tolerance in TOLERANCES.items()}
    return first if widths.get(first, 0.0) >= widths.get(second, 0.0) else second
