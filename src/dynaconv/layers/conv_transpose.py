"""Dynamic transposed convolutions of 1, 2 and 3 dimensions."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor, nn

from dynaconv.layers.base import CondConvDefaults, DynamicLayer, Option, RouterFactory, check_channels
from dynaconv.ops import Geometry, as_tuple, output_space
from dynaconv.routing import is_traced


class _DynamicConvTranspose(DynamicLayer):
    """The arguments of ``torch.nn.ConvTransposeNd`` in the same order, then ``experts``, ``router``, ``strategy``.

    Formula: ``y[b] = conv_transpose(x[b], sum_k routing[b, k] * weight[k]) + sum_k routing[b, k] * bias[k]``.

    Shapes:
        input ``(B, in_channels, *space)`` or ``(in_channels, *space)``; output as torch's transposed convolution;
        ``weight`` ``(experts, in_channels, out_channels / groups, *kernel_size)``;
        ``bias`` ``(experts, out_channels)``.

    Args:
        experts, router, strategy: as in :class:`DynamicConv2d`.

    Raises:
        ValueError: a value that no such layer can have, named in the message.
    """

    dims: ClassVar[int]
    stride = Option()
    padding = Option()
    dilation = Option()
    groups = Option()
    padding_mode = Option()
    transposed = Option()
    output_padding = Option()

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] = 0,
        output_padding: int | tuple[int, ...] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | tuple[int, ...] = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        experts: int | None = None,
        router: nn.Module | RouterFactory | str | None = None,
        strategy: str = "auto",
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = as_tuple("kernel_size", kernel_size, self.dims, least=1)
        geometry = Geometry(
            dims=self.dims,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            padding_mode=padding_mode,
            transposed=True,
            output_padding=output_padding,
        )
        check_channels(in_channels, out_channels, groups)
        self._build(
            (in_channels, out_channels // groups, *self.kernel_size),
            in_channels,
            out_channels,
            geometry,
            bias=bias,
            experts=experts,
            router=router,
            strategy=strategy,
            device=device,
            dtype=dtype,
        )

    def forward(self, x: Tensor, output_size: Sequence[int] | None = None, routing: Tensor | None = None) -> Tensor:
        """``output_size`` as in torch; ``routing`` ``(B, K)`` takes the place of the router's weights."""
        if is_traced(x, routing):
            return self._as_node(x, routing, output_size)
        if x.dim() == self.dims + 1:
            if output_size is not None and len(output_size) == self.dims + 1:
                output_size = output_size[1:]
            return self.forward(x.unsqueeze(0), output_size, routing).squeeze(0)
        return self._mix(x, routing, self._towards(x, output_size))

    def _towards(self, x: Tensor, output_size: Sequence[int] | None) -> Geometry:
        """The geometry whose output padding reaches ``output_size``."""
        if output_size is None:
            return self.geometry
        # As torch: the sizes of space, or of the whole output.
        wanted = tuple(output_size) if len(output_size) == self.dims else tuple(output_size)[2:]
        least = output_space(x.shape[2:], self.kernel_size, replace(self.geometry, output_padding=0))
        extra = tuple(want - low for want, low in zip(wanted, least, strict=False))
        most = tuple(stride - 1 for stride in self.stride)
        if len(wanted) != self.dims or any(not 0 <= more <= limit for more, limit in zip(extra, most, strict=False)):
            highest = tuple(low + limit for low, limit in zip(least, most, strict=True))
            raise ValueError(f"output_size is {tuple(output_size)}; expected sizes from {least} to {highest}")
        return replace(self.geometry, output_padding=extra)

    def extra_repr(self) -> str:
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        for name, default in (("padding", 0), ("output_padding", 0), ("dilation", 1)):
            value = getattr(self, name)
            if any(number != default for number in value):
                parts.append(f"{name}={value}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        return ", ".join(parts) + self._repr_tail()


_ARGUMENTS = inspect.cleandoc(_DynamicConvTranspose.__doc__ or "")  # without the indentation that it has in the file


class DynamicConvTranspose1d(_DynamicConvTranspose):
    __doc__ = f"Dynamic transposed convolution over a length.\n\n{_ARGUMENTS}"
    dims = 1


class DynamicConvTranspose2d(_DynamicConvTranspose):
    __doc__ = f"Dynamic transposed convolution over an image.\n\n{_ARGUMENTS}"
    dims = 2


class DynamicConvTranspose3d(_DynamicConvTranspose):
    __doc__ = f"Dynamic transposed convolution over a volume.\n\n{_ARGUMENTS}"
    dims = 3


class CondConvTranspose1d(CondConvDefaults, DynamicConvTranspose1d):
    """:class:`DynamicConvTranspose1d` with CondConv's defaults: 8 experts, sigmoid router."""


class CondConvTranspose2d(CondConvDefaults, DynamicConvTranspose2d):
    """:class:`DynamicConvTranspose2d` with CondConv's defaults: 8 experts, sigmoid router."""


class CondConvTranspose3d(CondConvDefaults, DynamicConvTranspose3d):
    """:class:`DynamicConvTranspose3d` with CondConv's defaults: 8 experts, sigmoid router."""
