"""Every layer class beside its torch twin, with odd arguments and inputs to try them on."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import dynaconv
from dynaconv.layers import DynamicLayer


class Twin(NamedTuple):
    """A dynamic class, its torch twin, the number of space dimensions, and whether it is transposed."""

    ours: type[DynamicLayer]
    theirs: type[nn.Module]
    dims: int
    transposed: bool

    def arguments(self) -> list[dict[str, Any]]:
        if self.dims == 0:
            return [{"in_features": 6, "out_features": 4}, {"in_features": 6, "out_features": 4, "bias": False}]
        made: list[dict[str, Any]] = [
            {"in_channels": 6, "out_channels": 4, "kernel_size": 3},
            {"in_channels": 6, "out_channels": 4, "kernel_size": 1, "bias": False},
            {"in_channels": 6, "out_channels": 4, "kernel_size": 2, "stride": 2, "padding": 1, "groups": 2},
            {"in_channels": 6, "out_channels": 6, "kernel_size": 3, "dilation": 2, "padding": 2, "groups": 6},
        ]
        if self.transposed:
            return [*made, {**made[2], "stride": 3, "output_padding": 1}]
        return [*made, {**made[0], "padding": "same", "padding_mode": "circular"}]

    def input(self, batch: int | None = 3, dtype: torch.dtype = torch.float32) -> Tensor:
        space = (7, 6, 5)[: self.dims]
        shape = (6, *space) if self.dims else (6,)
        return torch.randn(shape if batch is None else (batch, *shape), dtype=dtype)


TWINS = {
    twin.ours.__name__: twin
    for twin in (
        Twin(getattr(dynaconv, f"{name}{kind}{dims}d"), getattr(nn, f"{kind}{dims}d"), dims, kind == "ConvTranspose")
        for name in ("Dynamic", "Cond")
        for kind in ("Conv", "ConvTranspose")
        for dims in (1, 2, 3)
    )
} | {
    "DynamicLinear": Twin(dynaconv.DynamicLinear, nn.Linear, 0, False),
    "CondLinear": Twin(dynaconv.CondLinear, nn.Linear, 0, False),
}
