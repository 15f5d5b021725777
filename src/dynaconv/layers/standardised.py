"""Dynamic convolutions whose experts are standardised: timm's ``StdConv2d`` and ``ScaledStdConv2d``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dynaconv.layers.base import CondConvDefaults, RouterFactory
from dynaconv.layers.conv import DynamicConv2d


class DynamicStdConv2d(DynamicConv2d):
    """Dynamic convolution over an image with weight standardisation; 4 experts, softmax router.

    Formula: the bank that is mixed is ``(weight[k, o] - mean) / sqrt(var + eps)``, mean and variance over the inputs
    and positions of output channel o of expert k (Qiao et al. 2019, eq. 2); with ``scale``, times
    ``scale * gain[k, o]`` (Brock et al. 2021). Every expert is standardised on its own and then mixed, so that one-hot
    routing is timm's layer; a mixture of standardised kernels has a smaller variance than each of them.

    Args:
        scale: the constant beside the learnt gain, ``gamma / sqrt(fan_in)`` in timm's ``ScaledStdConv2d``; None for
            neither (``StdConv2d``).
        eps: added to the variance.
        others: as for :class:`DynamicConv2d`.

    Attributes:
        gain: ``(experts, out_channels, 1, 1, 1)``, as timm's ``(out_channels, 1, 1, 1)`` for each expert; or None.
    """

    gain: nn.Parameter | None

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
        scale: float | None = None,
        eps: float = 1e-6,
        experts: int | None = None,
        router: nn.Module | RouterFactory | str | None = None,
        strategy: str = "auto",
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            bias=bias,
            padding_mode=padding_mode,
            device=device,
            dtype=dtype,
            experts=experts,
            router=router,
            strategy=strategy,
        )
        if self.weight[0, 0].numel() < 2:
            raise ValueError("each output channel has one weight, which has no variance; use DynamicConv2d")
        if not eps > 0:
            raise ValueError(f"eps is {eps!r}; expected a number above 0")
        self.scale, self.eps = scale, eps
        if scale is None:
            self.register_parameter("gain", None)
        else:
            self.gain = nn.Parameter(torch.ones(self.experts, out_channels, 1, 1, 1, device=device, dtype=dtype))

    def reset_parameters(self) -> None:
        super().reset_parameters()
        gain = self._parameters.get("gain")  # not yet there when the base class is built
        if gain is not None:
            nn.init.ones_(gain)

    def mixed_bank(self) -> Tensor:
        """``(K, *kernel)``, the experts standardised."""
        bank = self.weight
        factors = None if self.gain is None or self.scale is None else (self.gain * self.scale).flatten()
        # As timm: batch norm over the one "example" whose channels are the output channels, of all experts here.
        rows = bank.reshape(1, bank.shape[0] * bank.shape[1], -1)
        return F.batch_norm(rows, None, None, weight=factors, training=True, momentum=0.0, eps=self.eps).view_as(bank)

    def extra_repr(self) -> str:
        scale = "" if self.scale is None else f", scale={self.scale:.4g}"
        return f"{super().extra_repr()}{scale}, eps={self.eps}"


class CondStdConv2d(CondConvDefaults, DynamicStdConv2d):
    """:class:`DynamicStdConv2d` with CondConv's defaults: 8 experts, sigmoid router (Yang et al. 2019)."""
