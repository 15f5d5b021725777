"""When the C kernels are faster than torch's operations: rules from measurements, for every instruction set.

The figures are in docs/performance.md, "Instruction sets".
"""

from __future__ import annotations

from typing import Literal

from dynaconv.kernels.cpu.build import instruction_set

Operation = Literal["dense", "depthwise", "frozen"]

_MEASURED = ("avx512", "avx2", "baseline")


def pays(
    operation: Operation, *, batch: int = 1, pointwise: bool = False, numbers: int = 0, training: bool = False
) -> str | None:
    """Why the kernel is not faster on the instruction set of the library, in a sentence; None if it is faster.

    Args:
        operation: ``"dense"`` (:mod:`~dynaconv.kernels.cpu.convolve`, where the bank is packed in every call),
            ``"depthwise"``, or ``"frozen"``, a whole frozen layer in one call.
        batch: examples.
        pointwise: whether a dense kernel has one tap.
        numbers: the number of weights in one kernel.
        training: whether gradients are computed.
    """
    if operation != "dense":
        return None  # faster on every instruction set: torch has no convolution with one kernel per example
    known = instruction_set()
    if known not in _MEASURED:
        return f"it was not measured on {known}"
    if pointwise and known == "baseline":
        return "without AVX2 a matrix product of torch's library is faster"
    if pointwise and numbers < 4_000:
        return f"packing the bank is not repaid by a 1x1 kernel of {numbers} numbers, less than 4,000"
    least = 16 if pointwise or (known == "baseline" and not training) else 8
    if batch < least:
        return f"packing the bank is not repaid by {batch} examples, fewer than {least}"
    return None
