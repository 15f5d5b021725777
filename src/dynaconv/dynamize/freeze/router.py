"""Routers whose constants are folded: the temperature goes into the last linear layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dynaconv.routing import PooledRouter, SigmoidRouter, SoftmaxRouter, global_average_pool


class FrozenRouter(nn.Module):
    """A :class:`SoftmaxRouter` or :class:`SigmoidRouter` for inference, in float32, with nothing left to decide.

    Formula: ``act(relu(GAP(x) H^T + h) F^T + f)``; ``F`` and ``f`` are divided by the temperature.
    """

    is_router = True

    def __init__(self, router: PooledRouter) -> None:
        super().__init__()
        self.in_channels, self.experts, self.softmax = router.in_channels, router.experts, router.sums_to_one
        temperature = router.temperature.double() if isinstance(router, SoftmaxRouter) else 1.0
        self.hidden_weight: Tensor | None
        self.hidden_bias: Tensor | None
        self.fc_weight: Tensor
        self.fc_bias: Tensor | None
        for name, layer, divisor in (("hidden", router.hidden, 1.0), ("fc", router.fc, temperature)):
            weight = None if layer is None else layer.weight
            bias = None if layer is None else layer.bias
            self.register_buffer(f"{name}_weight", _folded(weight, divisor))
            self.register_buffer(f"{name}_bias", _folded(bias, divisor))

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_autocast_enabled(x.device.type):
            with torch.autocast(x.device.type, enabled=False):
                return self._answer(x)
        return self._answer(x)

    def _answer(self, x: Tensor) -> Tensor:
        features = _pool(x).to(self.fc_weight.dtype)
        if self.hidden_weight is not None:
            features = F.relu(F.linear(features, self.hidden_weight, self.hidden_bias))
        logits = F.linear(features, self.fc_weight, self.fc_bias)
        return torch.softmax(logits, dim=1) if self.softmax else torch.sigmoid(logits)

    def extra_repr(self) -> str:
        return f"in_channels={self.in_channels}, experts={self.experts}, {'softmax' if self.softmax else 'sigmoid'}"


def _pool(x: Tensor) -> Tensor:
    """Global average pooling; over channels_last input as one matrix product, which reads it faster than a sum does."""
    if x.dim() != 4 or x.dtype != torch.float32 or not x.is_contiguous(memory_format=torch.channels_last):
        return global_average_pool(x)
    rows = x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, x.shape[1])
    return (rows.new_full((1, rows.shape[1]), 1 / rows.shape[1]) @ rows).squeeze(1)


def freeze_router(router: nn.Module) -> nn.Module:
    """A router's frozen form; a router of another class, which may compute anything, is kept."""
    if type(router) in (SoftmaxRouter, SigmoidRouter) and not getattr(router, "previous_experts", 0):
        return FrozenRouter(router)  # type: ignore[arg-type]
    return router


def _folded(parameter: Tensor | None, divisor: Tensor | float) -> Tensor | None:
    if parameter is None:
        return None
    wide = torch.promote_types(parameter.dtype, torch.float32)  # routers compute in float32 or better
    return (parameter.detach().double() / divisor).to(wide)
