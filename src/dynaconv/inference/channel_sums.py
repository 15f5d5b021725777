"""Sums over space of a layer's output, kept for the router of the next layer.

A router would read the whole map again only to average it. The layer computes the sums while it writes the map.
"""

from __future__ import annotations

import threading
import weakref

import torch
from torch import Tensor

from dynaconv.kernels.cpu import inference, why_not
from dynaconv.ops.call import is_plain
from dynaconv.torch_private import is_wrapped

_last = threading.local()


def remember(y: Tensor, sums: Tensor) -> None:
    """Remember the sums ``(B, C)`` of the map that was computed last on this thread."""
    if not y.is_inference():  # an inference tensor has no version counter, so later changes could not be noticed
        _last.known = weakref.ref(y), y._version, sums


def sums_of(x: Tensor) -> Tensor:
    """``(B, C)`` sums over space of ``x``, which is float32 in channels_last: remembered, or read from ``x`` itself."""
    known = remembered(x)
    return inference.channel_sums(x) if known is None else known


def remembered(x: Tensor) -> Tensor | None:
    """The remembered sums of ``x``, if ``x`` is the map that was computed last and has not changed since."""
    known = getattr(_last, "known", None)
    if known is not None and known[0]() is x and not x.is_inference() and x._version == known[1]:
        sums: Tensor = known[2]
        return sums
    return None


def readable(x: Tensor) -> bool:
    """Whether the C kernels may read ``x``; see :func:`why_not_readable`."""
    return why_not_readable(x) is None


def why_not_readable(x: Tensor) -> str | None:
    """Why the C kernels may not read ``x``, or None if it is an ordinary float32 map in channels_last."""
    if x.dtype != torch.float32 or x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return "it computes in float32 on a CPU"
    if is_wrapped(x):  # and cannot be asked for its layout
        return "the call is transformed (vmap), and torch does not see into a kernel of our own"
    if x.dim() != 4 or not x.is_contiguous(memory_format=torch.channels_last):
        return "the input is no map in channels_last"
    if x.numel() == 0:
        return "the batch is empty"
    if x.is_neg():
        return "the input is a lazily negated view, whose numbers have the other sign in memory"
    if x.requires_grad and torch.is_grad_enabled():
        return "the input needs a gradient, and this kernel has none"
    if torch.compiler.is_compiling():
        return "torch.compile or torch.export traces the call"
    if not is_plain(x):
        return "the call is transformed or watched, and torch does not see into a kernel of our own"
    reason = why_not()
    return None if reason is None else f"the kernels are not available: {reason}"
