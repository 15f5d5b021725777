"""What the kernels share, as functions on the device. Imports triton: load when used."""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped, import-not-found"
# Triton reads the annotations of a kernel's arguments; only its own may stand there.

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def seen(position, tap, stride, padding, dilation, length, TRANSPOSED: tl.constexpr):
    """Index into the source, and whether it lies inside, for positions of the result along one axis.

    A convolution sees ``position * stride - padding + tap * dilation``. Its derivative by the input (``TRANSPOSED``)
    asks the other way round: which output looked at ``position`` through ``tap``, if any did.
    """
    if TRANSPOSED:
        reach = position + padding - tap * dilation
        index = reach // stride
        inside = (reach >= 0) & (index * stride == reach) & (index < length)
    else:
        index = position * stride - padding + tap * dilation
        inside = (index >= 0) & (index < length)
    return index, inside


@triton.jit
def expert_ids(EXPERTS: tl.constexpr, EXPERTS_PADDED: tl.constexpr):
    """The experts and whether they exist: a tile's sides are powers of two, a bank's need not be."""
    experts = tl.arange(0, EXPERTS_PADDED)
    return experts, experts < EXPERTS


@triton.jit
def add_product(left, right, total, PRECISION: tl.constexpr, WIDEN: tl.constexpr):
    """``total + left @ right``, summed in float32.

    ``WIDEN``: convert both to float32 first, which changes no product. Triton's interpreter needs it for bfloat16: it
    holds those numbers as integers and multiplies them as such.
    """
    if WIDEN:
        left = left.to(tl.float32)
        right = right.to(tl.float32)
    return tl.dot(left, right, total, input_precision=PRECISION)
