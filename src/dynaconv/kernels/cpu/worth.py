"""Where the C kernels are faster than torch's own operations: a rule for every instruction set, from measurements.

The figures stand in docs/performance.md, "Instruction sets".
"""

from __future__ import annotations

from typing import Literal

from dynaconv.kernels.cpu.build import instruction_set

Operation = Literal["dense", "depthwise", "frozen"]

_MEASURED = ("avx512", "avx2", "baseline")


def pays(
    operation: Operation, *, batch: int = 1, pointwise: bool = False, numbers: int = 0, training: bool = False
) -> str | None:
    """Why the kernel does not pay on what the library was compiled for, in a sentence; None where it does.

    Args:
        operation: ``"dense"`` (:mod:`~dynaconv.kernels.cpu.convolve`, where the bank is packed in every call),
            ``"depthwise"``, or ``"frozen"``, a whole frozen layer in one call.
        batch: examples.
        pointwise: whether a dense kernel has one tap.
        numbers: numbers of one kernel.
        training: whether gradients are computed.
    """
    if operation != "dense":
        return None  # faster on every instruction set: torch has no convolution with a kernel for every example
    known = instruction_set()
    if known not in _MEASURED:
        return f"it was not measured on {known}"
    if pointwise and known == "baseline":
        return "without AVX2 a matrix product of torch's library is faster"
    if pointwise and numbers < 40_000:
        return f"packing the bank is not repaid by a 1x1 kernel of {numbers} numbers, less than 40,000"
    least = 16 if pointwise or (known == "baseline" and not training) else 8
    if batch < least:
        return f"packing the bank is not repaid by {batch} examples, fewer than {least}"
    return None
