"""What a layer hands to the router of the next one: the sums over space of its output, taken as it was written.

A router reads a map once more, only to average it. The layer that writes the map has every number at hand.
"""

from __future__ import annotations

import threading
import weakref

import torch
from torch import Tensor

from dynaconv.kernels.cpu import inference, why_not
from dynaconv.ops.call import is_plain
from dynaconv.torch_private import forward_ad_active, is_wrapped

_last = threading.local()


def remember(y: Tensor, sums: Tensor) -> None:
    """Remember the sums ``(B, C)`` of the map that was computed last on this thread."""
    if not y.is_inference():  # such a tensor has no version that would tell of a later change
        _last.known = weakref.ref(y), y._version, sums


def sums_of(x: Tensor) -> Tensor:
    """``(B, C)`` sums over space of ``x``, which is float32 in channels_last: remembered, or read from ``x`` itself."""
    known = remembered(x)
    return inference.channel_sums(x) if known is None else known


def remembered(x: Tensor) -> Tensor | None:
    """The sums of ``x`` that were remembered, if it is the map that was computed last, unchanged."""
    known = getattr(_last, "known", None)
    if known is not None and known[0]() is x and not x.is_inference() and x._version == known[1]:
        sums: Tensor = known[2]
        return sums
    return None


def readable(x: Tensor) -> bool:
    """Whether kernels of our own may read ``x``: an ordinary float32 map on the CPU, in channels_last, unwatched."""
    return (
        x.dtype == torch.float32
        and x.dim() == 4
        and x.numel() > 0
        and x.is_contiguous(memory_format=torch.channels_last)
        and not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and not (x.requires_grad and torch.is_grad_enabled())
        and not torch.is_autocast_enabled("cpu")
        and is_plain(x)
        and not is_wrapped(x)
        and not forward_ad_active()
        and why_not() is None
    )
