"""The layout and the precision of a frozen bank, and the mixing of kernels from it.

Layouts, each in the order in which the bank is read:

``"panels"``, dense layers over images: ``(K, ceil(out / 32), taps * in, 32)``, the last panel padded with zeros.
``"taps"``, depthwise layers over images: ``(K, taps, out)``.
``"rows"``, all others: ``(K, out, in/groups * taps)``, or ``(K, in, out)`` of linear and 1x1 layers in one group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from dynaconv.errors import suggest
from dynaconv.kernels.cpu import inference, why_not
from dynaconv.kernels.cpu.convolve import PANEL
from dynaconv.ops import Geometry
from dynaconv.ops.call import is_plain
from dynaconv.torch_private import is_exporting

Layout = Literal["panels", "taps", "rows"]

# The dimension of the bank along which int8 scales are shared: the weights of one output channel.
ALONG: dict[Layout, int] = {"panels": 2, "taps": 1, "rows": 2}


def layout_of(geometry: Geometry, kernel_shape: Sequence[int]) -> Layout:
    """The layout of a layer whose kernel is ``(out, in/groups, *taps)``."""
    out, per_group = kernel_shape[:2]
    if geometry.dims != 2:
        return "rows"
    if geometry.groups == 1:
        return "panels"
    return "taps" if per_group == 1 and out == geometry.groups else "rows"


def lay_out(kernels: Tensor, layout: Layout) -> Tensor:
    """``(K, out, in/groups, *taps)`` to the layout."""
    if layout == "rows":
        return kernels.flatten(2)
    if layout == "taps":
        return kernels.flatten(2).transpose(1, 2)
    experts, out = kernels.shape[:2]
    rows = kernels.flatten(3).permute(0, 3, 2, 1).reshape(experts, -1, out)  # taps outside, input channels inside
    rows = F.pad(rows, (0, -out % PANEL))
    return rows.view(experts, rows.shape[1], -1, PANEL).transpose(1, 2)


def read(mixed: Tensor, layout: Layout, kernel_shape: Sequence[int]) -> Tensor:
    """``(b, ...)`` in the layout to ``(b, out, in/groups, *taps)``, a view where that is possible."""
    if layout == "rows":
        return mixed.view(-1, *kernel_shape)
    if layout == "taps":
        return mixed.transpose(1, 2).reshape(-1, *kernel_shape)
    out, inputs, *taps = kernel_shape
    rows = mixed.transpose(1, 2).reshape(mixed.shape[0], -1, inputs, mixed.shape[1] * PANEL)[..., :out]
    return rows.permute(0, 3, 2, 1).unflatten(3, taps)


BANK_DTYPES: dict[str, torch.dtype] = {"bfloat16": torch.bfloat16, "int8": torch.int8}


def check_bank_dtype(bank_dtype: str | None) -> None:
    """Raise ValueError unless it is None or the name of a reduced storage."""
    if bank_dtype is not None and bank_dtype not in BANK_DTYPES:
        raise ValueError(
            f"bank_dtype is {bank_dtype!r}; None keeps the bank as it is. {suggest(str(bank_dtype), BANK_DTYPES)}"
        )


def reduce_bank(bank: Tensor, bank_dtype: str | None, along: int) -> tuple[Tensor, Tensor | None]:
    """A bank ``(K, ...)`` to its stored form; for int8 with a scale for every output channel of every expert.

    The weights of one output channel are along dimension ``along``. They are stored as ``round(127 * w / max |w|)``
    with the scale ``max |w| / 127``: the error of a weight is at most half a scale. Zeros stay zero.
    """
    if bank_dtype is None:
        return bank, None
    if bank_dtype == "bfloat16":
        return bank.to(torch.bfloat16), None
    scale = bank.abs().amax(dim=along, keepdim=True).float() / 127  # as the kernel reads it
    steps = bank / torch.where(scale > 0, scale, 1.0)
    return steps.round().clamp(-127, 127).to(
        torch.int8
    ), scale  # a subnormal scale is rounded by a large part of itself


def mix_bank(bank: Tensor, scale: Tensor | None, routing: Tensor, dtype: torch.dtype) -> Tensor:
    """``(K, ...), (B, K) -> (B, ...)`` in ``dtype``.

    One matrix product if the bank is stored in ``dtype``. A reduced bank is converted while it is read, so that only
    the reduced bytes are read: by a C kernel, or expert by expert, which torch.compile fuses into one loop (no other
    runtime of an exported graph does).
    """
    routing = routing.to(dtype)
    if bank.dtype != dtype and bank.dim() == 3 and _kernel_can_mix(routing):
        return inference.mix(bank, scale, routing)
    one_by_one = torch.compiler.is_compiling() and not is_exporting() and routing.shape[0] == 1
    if bank.dtype == dtype and not one_by_one:
        return (routing @ bank.flatten(1)).unflatten(1, bank.shape[1:])
    weights = routing.view(*routing.shape, *(1,) * (bank.dim() - 1))
    if scale is not None:
        weights = weights * scale.to(dtype)
    total = weights[:, 0] * bank[0].to(dtype)
    for expert in range(1, bank.shape[0]):
        total = total + weights[:, expert] * bank[expert].to(dtype)
    return total


def _kernel_can_mix(routing: Tensor) -> bool:
    usual = routing.dtype == torch.float32 and routing.device.type == "cpu" and not routing.requires_grad
    return usual and not torch.compiler.is_compiling() and is_plain(routing) and why_not() is None
