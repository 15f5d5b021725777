"""Dynamic linear layers: the dynamic perceptron."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from dynaconv.layers.base import CondConvDefaults, DynamicLayer, RouterFactory, check_channels
from dynaconv.ops import Geometry
from dynaconv.routing import is_traced


class DynamicLinear(DynamicLayer):
    """The dynamic perceptron before its activation (Chen et al. 2020, eq. 1); 4 experts, softmax router.

    Formula: ``y[b] = x[b] W[b]^T + c[b]``, ``W[b] = sum_k routing[b, k] * weight[k]``, ``c[b]`` likewise of ``bias``.

    Shapes:
        input ``(B, *, in_features)`` or ``(in_features,)``: every index of the first dimension is one example, with one
        kernel for all its rows; the router sees ``(B, in_features, *)``, so it pools over the rows. Output
        ``(B, *, out_features)``; ``weight`` ``(experts, out_features, in_features)``; ``bias``
        ``(experts, out_features)``.

    Args:
        in_features, out_features, bias, device, dtype: as ``torch.nn.Linear``.
        experts, router, strategy: as in :class:`DynamicConv2d`.

    Note: a linear layer has one position, so mixing K kernels costs K times the layer itself (the paper's eq. 2 does
    not hold for it).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        experts: int | None = None,
        router: nn.Module | RouterFactory | str | None = None,
        strategy: str = "auto",
    ) -> None:
        super().__init__()
        check_channels(in_features, out_features, 1)
        self.in_features, self.out_features = in_features, out_features
        self._build(
            (out_features, in_features),
            in_features,
            out_features,
            Geometry(dims=0),
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
        if x.dim() == 1:
            return self._mix(x.unsqueeze(0), routing).squeeze(0)
        return self._mix(x, routing)

    def _router_view(self, x: Tensor) -> Tensor:
        return x.movedim(-1, 1)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}" + self._repr_tail()


class CondLinear(CondConvDefaults, DynamicLinear):
    """:class:`DynamicLinear` with CondConv's defaults: the paper's 1x1 CondConv in place of a classifier."""
