"""Functions on the device that the kernels share.

This module imports triton; import it only when a kernel is launched.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped, import-not-found"
# Triton reads the annotations of a kernel's arguments, so only Triton's types are allowed there.

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def source_index(position, tap, stride, padding, dilation, length, TRANSPOSED: tl.constexpr):
    """For output positions along one axis: the index in the source that a tap reads, and whether it is in bounds.

    A convolution reads ``position * stride - padding + tap * dilation``. Its gradient with respect to the input
    (``TRANSPOSED``) needs the inverse: the output that read ``position`` through ``tap``, if there is one.
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
    """Indices of the experts, and a mask: the sides of a tile are powers of two, the number of experts need not be."""
    experts = tl.arange(0, EXPERTS_PADDED)
    return experts, experts < EXPERTS


@triton.jit
def add_product(left, right, total, PRECISION: tl.constexpr, WIDEN: tl.constexpr):
    """``total + left @ right``, summed in float32.

    ``WIDEN``: convert both to float32 first, which changes no product. Triton's interpreter needs this for bfloat16: it
    stores those numbers as integers and would multiply the integers.
    """
    if WIDEN:
        left = left.to(tl.float32)
        right = right.to(tl.float32)
    return tl.dot(left, right, total, input_precision=PRECISION)
