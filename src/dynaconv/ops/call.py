"""The description of one call, by which a strategy is chosen: shapes, dtypes, layout and modes, but no values."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor

from dynaconv.kernels.cpu import keeps_memory
from dynaconv.ops.geometry import Geometry
from dynaconv.torch_private import forward_ad_active, is_exporting, is_watched, is_wrapped

wants_operators: ContextVar[bool] = ContextVar("wants_operators", default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of an operation; ``geometry`` is already resolved to numeric zero padding.

    Attributes:
        operation: ``"mix"`` (a bank and routing weights) or ``"convolve_each"`` (kernels that are mixed already).
        x_shape: of the input.
        bank_shape: of the bank, ``(K, *kernel)``; for ``convolve_each`` of the kernels, ``(B, *kernel)``.
        dtype: of the input; the bank has the same dtype unless autocast is on.
        autocast: the dtype that autocast uses on this device; None where autocast is off.
        needs_grad: whether a backward pass may follow.
        exporting: torch.export traces the call.
        as_operator: an exporter wants one operator a layer (inside ``strategies.operator.as_operators``).
        compiling: torch.compile traces the call.
        channels_last: whether the input is a 2d map in channels_last layout.
        plain: the tensors are ordinary ones, and no mode or transform of torch is active; see :func:`is_plain`.
        keeps_memory: whether :func:`dynaconv.keep_freed_memory` was called; the cost of large examples depends on it.
    """

    operation: str = "mix"
    x_shape: tuple[int, ...]
    bank_shape: tuple[int, ...]
    geometry: Geometry
    device: str
    dtype: torch.dtype
    needs_grad: bool
    autocast: torch.dtype | None = None
    exporting: bool = False
    as_operator: bool = False
    compiling: bool = False
    channels_last: bool = False
    plain: bool = True
    keeps_memory: bool = False

    @property
    def batch(self) -> int:
        return self.x_shape[0]

    @property
    def experts(self) -> int:
        return self.bank_shape[0]

    @property
    def kernel(self) -> tuple[int, ...]:
        dims = self.geometry.dims
        return self.bank_shape[-dims:] if dims else ()

    @property
    def pointwise(self) -> bool:
        """A kernel of one tap: the convolution is a matrix product at every position."""
        return all(size == 1 for size in self.kernel)

    @property
    def depthwise(self) -> bool:
        """One input channel per group."""
        return self.geometry.dims > 0 and self.geometry.groups > 1 and self.x_shape[1] == self.geometry.groups

    @classmethod
    def of(cls, x: Tensor, bank: Tensor, routing: Tensor | None, geometry: Geometry) -> Call:
        """The call of ``mix``; without ``routing`` that of ``convolve_each``, whose kernels are ``bank``."""
        tensors = (x, bank) if routing is None else (x, bank, routing)
        compiling = torch.compiler.is_compiling()
        return cls(
            operation="convolve_each" if routing is None else "mix",
            x_shape=tuple(x.shape),
            bank_shape=tuple(bank.shape),
            geometry=geometry,
            device=x.device.type,
            dtype=x.dtype,
            needs_grad=torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors),
            autocast=autocast_dtype(x.device.type),
            exporting=is_exporting(),
            as_operator=wants_operators.get(),
            compiling=compiling,
            channels_last=is_channels_last(x),
            plain=compiling or is_plain(*tensors),
            keeps_memory=x.device.type == "cpu" and keeps_memory(),
        )


def is_channels_last(x: Tensor) -> bool:
    """Whether a tensor is a 2d map in channels_last layout; False under ``vmap``, where a tensor cannot be asked."""
    if x.dim() != 4 or (not torch.compiler.is_compiling() and is_wrapped(x)):
        return False
    return x.is_contiguous(memory_format=torch.channels_last)


def autocast_dtype(device: str) -> torch.dtype | None:
    """The dtype of autocast on a kind of device, or None where it is off or unknown (``meta``)."""
    if device == "meta" or not torch.is_autocast_enabled(device):  # meta has no autocast, and asking raises
        return None
    return torch.get_autocast_dtype(device)


def is_plain(*tensors: Tensor) -> bool:
    """Whether this project's kernels may read the memory of these tensors.

    They may if all are ordinary tensors, and no transform, mode or tracing is active: ``torch.func``, forward-mode
    derivatives, a dispatch mode, ``torch.jit.trace``.
    """
    if is_watched() or forward_ad_active() or torch.jit.is_tracing():
        return False
    return all(type(tensor) in (Tensor, torch.nn.Parameter) for tensor in tensors)
