"""What a strategy may know of a call before it runs: shapes and circumstances, no values."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dynaconv.ops.geometry import Geometry


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the mixing operation; ``geometry`` is already resolved to numeric zero padding."""

    x_shape: tuple[int, ...]
    bank_shape: tuple[int, ...]
    geometry: Geometry
    device: str
    dtype: torch.dtype
    needs_grad: bool
    exporting: bool
    compiling: bool
    channels_last: bool = False
    plain: bool = True  # see is_plain

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
    def of(cls, x: Tensor, bank: Tensor, routing: Tensor, geometry: Geometry) -> Call:
        grad = torch.is_grad_enabled() and (x.requires_grad or bank.requires_grad or routing.requires_grad)
        shapes = tuple(x.shape), tuple(bank.shape)
        compiling = torch.compiler.is_compiling()
        return cls(
            *shapes,
            geometry,
            x.device.type,
            x.dtype,
            grad,
            exporting=is_exporting(),
            compiling=compiling,
            channels_last=x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last),
            plain=not compiling and is_plain(x, bank, routing),
        )


def is_exporting() -> bool:
    """Whether torch.export traces this call (and not torch.compile)."""
    # torch.compiler.is_exporting() answers True inside torch.compile on torch 2.11; the flag that it reads is right
    exporting: bool = torch.compiler._is_exporting_flag
    return exporting


def is_plain(*tensors: Tensor) -> bool:
    """Whether a kernel of our own may read them: ordinary tensors; nothing traces, transforms or watches the call."""
    watched = torch._C._len_torch_dispatch_stack() or torch._C._len_torch_function_stack()
    if watched or torch._C._functorch.peek_interpreter_stack() is not None:
        return False
    return all(type(tensor) in (Tensor, torch.nn.Parameter) for tensor in tensors) and not torch.jit.is_tracing()
