"""A dynamic layer for inference."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dynaconv.inference import one_call
from dynaconv.inference.bank import ALONG, lay_out, layout_of, mix_bank, read, reduce_bank
from dynaconv.inference.channel_sums import readable
from dynaconv.inference.norm_folding import Affine, along_output
from dynaconv.kernels.cpu.activation import RELU, Activation
from dynaconv.layers import DynamicLayer
from dynaconv.ops import Geometry
from dynaconv.ops.geometry import resolve_padding
from dynaconv.ops.strategies import grouped, loop, matmul, unfold
from dynaconv.torch_private import is_exporting


class FrozenLayer(nn.Module):
    """``y[b] = conv(x[b], sum_k routing[b, k] * bank[k]) + bias + sum_k routing[b, k] * biases[k]``, nothing trained.

    The batch norm behind the layer is in ``bank`` (its scale) and in ``bias`` (its shift, which no routing touches, so
    that it is right for routing weights of any sum).

    Attributes:
        bank: as it is read; see :mod:`~dynaconv.inference.bank`.
        scale: of an int8 bank, else None.
        bias: ``(out,)`` or None.
        biases: ``(K, out)`` or None, the layer's own biases.
        strategy: ``"loop"``, ``"grouped"`` or ``"unfold"``; how a batch of more than one runs.
        activation: the one that follows, where the layer can do it (ReLU, ReLU6, SiLU, hard-swish); else None.
    """

    bank: Tensor
    scale: Tensor | None
    bias: Tensor | None
    biases: Tensor | None

    def __init__(
        self,
        layer: Any,
        affine: Affine | None,
        router: nn.Module,
        *,
        bank_dtype: str | None,
        strategy: str,
        activation: Activation | None = None,
    ):
        super().__init__()
        self.geometry: Geometry = layer.geometry
        self.experts, self.kernel_shape = layer.experts, tuple(layer.weight.shape[1:])
        self.activation = activation
        self.strategy, self.dtype, self.bank_dtype = strategy, layer.weight.dtype, bank_dtype
        self.product = self.geometry.groups == 1 and matmul.fits(self.geometry, self.kernel_shape[2:])
        self.layout = layout_of(self.geometry, self.kernel_shape)
        kernels = layer.weight.detach().double()
        if affine is not None:
            kernels = kernels * along_output(affine.scale, kernels, layer, leading=1)
        kernels = lay_out(kernels, self.layout).to(self.dtype).contiguous()
        stored, scale = reduce_bank(kernels, bank_dtype, along=ALONG[self.layout])
        self.register_buffer("bank", stored)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if affine is None else affine.shift.to(self.dtype))
        own = None if layer.bias is None else layer.bias.detach()
        if own is not None and affine is not None:
            own = (own.double() * affine.scale).to(self.dtype)
        self.register_buffer("biases", own)
        self.router = router

    def forward(self, x: Tensor, routing: Tensor | None = None) -> Tensor:
        dims = self.geometry.dims
        if x.dim() == dims + 1:
            return self.forward(x.unsqueeze(0), routing).squeeze(0)
        if not torch.compiler.is_compiling() and not is_exporting() and x.shape[0] == 0:
            return self.forward(x.new_zeros(1, *x.shape[1:]))[:0]
        padded, geometry = resolve_padding(x, self.kernel_shape[2:], self.geometry)
        quickly = self.layout != "rows" and self.dtype == torch.float32 and readable(padded)
        if routing is None and not (quickly and padded is x and one_call.can_route(self, x)):
            routing = self.router(x if dims else x.movedim(-1, 1))
        if quickly:
            return one_call.run(self, padded, routing, geometry)
        assert routing is not None
        return self._activated(self._convolved(padded, routing, geometry))

    def _activated(self, y: Tensor) -> Tensor:
        if self.activation is None or self.activation == RELU:
            return y if self.activation is None else F.relu(y)
        curve, low, high = self.activation
        return F.hardtanh(y, low, high) if curve == "clamp" else {"silu": F.silu, "hardswish": F.hardswish}[curve](y)

    def _convolved(self, x: Tensor, routing: Tensor, geometry: Geometry) -> Tensor:
        if is_exporting() or (torch.compiler.is_compiling() and x.shape[0] > 1):
            return self._piece(x, routing, geometry)
        pieces = list(loop.pieces(x.shape[0], self.bank[0].numel() * x.element_size()))
        if len(pieces) < 2:
            return self._piece(x, routing, geometry)
        return torch.cat([self._piece(x[piece], routing[piece], geometry) for piece in pieces])

    def _piece(self, x: Tensor, routing: Tensor, geometry: Geometry) -> Tensor:
        kernels = read(self.mixed_kernels(routing), self.layout, self.kernel_shape)
        biases = self.mixed_biases(routing)
        if not self.product:
            return self._convolve(x, kernels, biases, geometry)
        rows = kernels.flatten(2).transpose(1, 2)
        if not geometry.dims:
            return _rows(x.reshape(x.shape[0], -1, x.shape[-1]), rows, biases).reshape(*x.shape[:-1], -1)
        if matmul.keeps(geometry) and x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
            tokens = x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, x.shape[1])
            return _rows(tokens, rows, biases).reshape(x.shape[0], *x.shape[2:], -1).permute(0, 3, 1, 2)
        return matmul.convolve_each(x, kernels, biases, geometry)

    def mixed_kernels(self, routing: Tensor) -> Tensor:
        """``(b, ...)``, the bank mixed, in its layout."""
        return mix_bank(self.bank, self.scale, routing, self.dtype)

    def mixed_biases(self, routing: Tensor) -> Tensor | None:
        """``(b, out)``"""
        if self.biases is None:
            return None if self.bias is None else self.bias.expand(routing.shape[0], -1)
        routed = routing.to(self.dtype) @ self.biases
        return routed if self.bias is None else routed + self.bias

    def _convolve(self, x: Tensor, kernels: Tensor, biases: Tensor | None, geometry: Geometry) -> Tensor:
        if is_exporting() or self.strategy == "unfold":
            return unfold.convolve_each(x, kernels, biases, geometry)
        if self.strategy == "grouped" or (torch.compiler.is_compiling() and x.shape[0] > 1):
            return grouped.convolve_each(x, kernels, biases, geometry)
        return loop.convolve_each(x, kernels, biases, geometry)

    def extra_repr(self) -> str:
        stored = "" if self.bank_dtype is None else f", bank_dtype={self.bank_dtype!r}"
        return f"experts={self.experts}, kernel={self.kernel_shape}, strategy={self.strategy!r}{stored}"


def _rows(rows: Tensor, kernels: Tensor, biases: Tensor | None) -> Tensor:
    """``(b, L, in), (b, in, out), (b, out) -> (b, L, out)``; one example is an ordinary product, which costs less."""
    if rows.shape[0] == 1 and not is_exporting():
        one = rows[0] @ kernels[0] if biases is None else torch.addmm(biases[0], rows[0], kernels[0])
        return one.unsqueeze(0)
    return rows @ kernels if biases is None else torch.baddbmm(biases.unsqueeze(1), rows, kernels)


def can_freeze(module: nn.Module) -> bool:
    """Whether a layer has a frozen form: every dynamic layer but the transposed ones, which stay as they are."""
    return isinstance(module, DynamicLayer) and not module.geometry.transposed
