"""Routers with folded constants: the last linear layer is divided by the temperature."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dynaconv.inference.channel_sums import readable, sums_of
from dynaconv.kernels.cpu import inference
from dynaconv.ops.call import autocast_dtype
from dynaconv.routing import PooledRouter, SigmoidRouter, SoftmaxRouter, as_node, global_average_pool, is_traced
from dynaconv.torch_private import carry_hooks, is_hooked

if TYPE_CHECKING:
    from typing_extensions import Self

FEW = 8  # up to so many examples the C router, one example after the other, is faster than five operations of torch


class FrozenRouter(nn.Module):
    """A :class:`SoftmaxRouter` or :class:`SigmoidRouter` for inference, in float32.

    Formula: ``act(relu(GAP(x) H^T + h) F^T + f)``; ``F`` and ``f`` are divided by the temperature.
    """

    is_router = True

    hidden_weight: Tensor | None
    hidden_bias: Tensor | None
    fc_weight: Tensor
    fc_bias: Tensor | None

    def __init__(self, in_channels: int, experts: int, *, softmax: bool) -> None:
        super().__init__()
        self.in_channels, self.experts, self.softmax = in_channels, experts, softmax
        for name in ("hidden_weight", "hidden_bias", "fc_weight", "fc_bias"):
            self.register_buffer(name, None)

    @classmethod
    def of(cls, router: PooledRouter) -> FrozenRouter:
        """The frozen form of a router."""
        made = cls(router.in_channels, router.experts, softmax=router.sums_to_one)
        temperature = router.temperature.double() if isinstance(router, SoftmaxRouter) else 1.0
        for name, layer, divisor in (("hidden", router.hidden, 1.0), ("fc", router.fc, temperature)):
            for part in ("weight", "bias"):
                setattr(made, f"{name}_{part}", _folded(getattr(layer, part, None), divisor))
        return made

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move and cast; in a half-precision network the router stays float32, as all routers do."""

        def wide(tensor: Tensor) -> Tensor:
            made = fn(tensor)
            return made if made.dtype in (torch.float32, torch.float64) else tensor.to(made.device, torch.float32)

        return super()._apply(wide, recurse)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *space) -> (B, K)``"""
        if is_traced(x):
            node: Tensor = as_node(self, x)
            return node
        if x.dim() < 2 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"router got input of shape {tuple(x.shape)}; expected (batch, {self.in_channels}, *space)"
            )
        if autocast_dtype(x.device.type) is not None:
            with torch.autocast(x.device.type, enabled=False):
                return self._route(x)
        return self._route(x)

    def _route(self, x: Tensor) -> Tensor:
        if self.fc_weight.dtype == torch.float32 and self.fc_weight.device == x.device and readable(x):
            return self._from_sums(sums_of(x), x.shape[2] * x.shape[3])
        return self._from_features(global_average_pool(x).to(self.fc_weight.dtype))

    def _from_sums(self, sums: Tensor, pixels: int) -> Tensor:
        if sums.shape[0] > FEW:  # a matrix product reads the weights once for all examples
            return self._from_features(sums / pixels)
        router = inference.LinearRouter(
            self.hidden_weight, self.hidden_bias, self.fc_weight, self.fc_bias, self.softmax
        )
        return inference.route(sums, pixels, router)

    def _from_features(self, features: Tensor) -> Tensor:
        if self.hidden_weight is not None:
            features = F.relu(F.linear(features, self.hidden_weight, self.hidden_bias))
        logits = F.linear(features, self.fc_weight, self.fc_bias)
        return torch.softmax(logits, dim=1) if self.softmax else torch.sigmoid(logits)

    def extra_repr(self) -> str:
        return f"in_channels={self.in_channels}, experts={self.experts}, {'softmax' if self.softmax else 'sigmoid'}"


def freeze_router(router: nn.Module) -> nn.Module:
    """A router's frozen form, with its hooks.

    A router is not changed if it is of another class, reads another router's weights, or has layers with hooks.
    """
    known = type(router) in (SoftmaxRouter, SigmoidRouter) and not getattr(router, "previous_experts", 0)
    if not known or any(is_hooked(part) for part in router.modules() if part is not router):
        return router
    made = FrozenRouter.of(router)  # type: ignore[arg-type]
    carry_hooks(router, made)
    return made


def _folded(parameter: Tensor | None, divisor: Tensor | float) -> Tensor | None:
    if parameter is None:
        return None
    wide = torch.promote_types(parameter.dtype, torch.float32)  # routers compute in float32 or better
    return (parameter.detach().double() / divisor).to(wide)
