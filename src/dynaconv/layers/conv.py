"""Dynamic convolutions of 1, 2 and 3 dimensions."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

from torch import Tensor, nn

from dynaconv.layers.base import CondConvDefaults, DynamicLayer, Option, RouterFactory, check_channels
from dynaconv.ops import Geometry, as_tuple
from dynaconv.routing import is_traced


class _DynamicConv(DynamicLayer):
    """The arguments of ``torch.nn.ConvNd`` in the same order, then keyword-only ``experts``, ``router``, ``strategy``.

    Formula: ``y[b] = conv(x[b], sum_k routing[b, k] * weight[k]) + sum_k routing[b, k] * bias[k]``.

    Shapes:
        input ``(B, in_channels, *space)`` or ``(in_channels, *space)``; output as torch's convolution;
        ``weight`` ``(experts, out_channels, in_channels / groups, *kernel_size)``;
        ``bias`` ``(experts, out_channels)``.

    Args:
        experts: K, the number of expert kernels.
        router: None for the class's own; ``"sigmoid"`` or ``"softmax"``; a callable
            ``(in_channels, experts) -> module``; or a module ``(B, C, *space) -> (B, K)``.
        strategy: ``"auto"``, or the name of a strategy; the call raises ValueError if that strategy cannot run it.

    Deviation from torch: ``padding="same"`` is allowed with a stride above 1; the padding is then TensorFlow's.

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
        padding: int | tuple[int, ...] | str = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        bias: bool = True,
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
            dims=self.dims, stride=stride, padding=padding, dilation=dilation, groups=groups, padding_mode=padding_mode
        )
        check_channels(in_channels, out_channels, groups)
        self._build(
            (out_channels, in_channels // groups, *self.kernel_size),
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

    def forward(self, x: Tensor, routing: Tensor | None = None) -> Tensor:
        """``routing`` ``(B, K)`` takes the place of the router's weights when it is given."""
        if is_traced(x, routing):
            return self._as_node(x, routing)
        if x.dim() == self.dims + 1:
            return self._mix(x.unsqueeze(0), routing).squeeze(0)
        return self._mix(x, routing)

    def extra_repr(self) -> str:
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        if isinstance(self.padding, str) or any(self.padding):
            parts.append(f"padding={self.padding!r}")
        if any(size != 1 for size in self.dilation):
            parts.append(f"dilation={self.dilation}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode!r}")
        return ", ".join(parts) + self._repr_tail()


_ARGUMENTS = inspect.cleandoc(_DynamicConv.__doc__ or "")  # without the indentation that it has in the file


class DynamicConv1d(_DynamicConv):
    __doc__ = f"Dynamic convolution over a length; 4 experts, softmax router.\n\n{_ARGUMENTS}"
    dims = 1


class DynamicConv2d(_DynamicConv):
    __doc__ = f"Dynamic convolution over an image; 4 experts, softmax router.\n\n{_ARGUMENTS}"
    dims = 2


class DynamicConv3d(_DynamicConv):
    __doc__ = f"Dynamic convolution over a volume; 4 experts, softmax router.\n\n{_ARGUMENTS}"
    dims = 3


class CondConv1d(CondConvDefaults, DynamicConv1d):
    """:class:`DynamicConv1d` with CondConv's defaults: 8 experts, sigmoid router (Yang et al. 2019)."""


class CondConv2d(CondConvDefaults, DynamicConv2d):
    """:class:`DynamicConv2d` with CondConv's defaults: 8 experts, sigmoid router (Yang et al. 2019)."""


class CondConv3d(CondConvDefaults, DynamicConv3d):
    """:class:`DynamicConv3d` with CondConv's defaults: 8 experts, sigmoid router (Yang et al. 2019)."""
