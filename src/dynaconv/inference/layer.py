"""A dynamic layer for inference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dynaconv import ops
from dynaconv.inference import one_call, operator
from dynaconv.inference.bank import ALONG, lay_out, layout_of, mix_bank, read, reduce_bank
from dynaconv.inference.channel_sums import why_not_readable
from dynaconv.inference.norm_folding import Affine, along_output
from dynaconv.kernels.cpu import pays
from dynaconv.kernels.cpu.arguments import RELU, Activation
from dynaconv.ops import STRATEGIES, Call, Geometry, Plan, convolve_each
from dynaconv.ops.convolution import convolve
from dynaconv.ops.geometry import resolve_padding
from dynaconv.ops.mixing import EMPTY
from dynaconv.ops.plan import plan
from dynaconv.ops.strategies import loop
from dynaconv.routing import ScopedRouter, as_node, is_traced
from dynaconv.torch_private import is_exporting

if TYPE_CHECKING:
    from typing_extensions import Self


FROZEN = "frozen"
CHOICES = (FROZEN, *ops.CHOICES)


class _Fixed:
    """``layer.stride`` and its like, read from the geometry. The kernel's constants are made from it once."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, layer: Any, owner: type | None = None) -> Any:
        if layer is None:
            return self
        if not layer.geometry.dims:
            raise AttributeError(f"a linear layer has no {self.name}")
        return getattr(layer.geometry, self.name)

    def __set__(self, layer: Any, value: Any) -> None:
        raise AttributeError(
            f"the {self.name} of a frozen layer cannot be changed: change the dynamic layer's, and freeze again"
        )


class FrozenLayer(nn.Module):
    """``y[b] = conv(x[b], sum_k routing[b, k] * bank[k]) + bias + sum_k routing[b, k] * biases[k]``.

    The batch norm after the layer is folded into ``bank`` (its scale) and ``bias`` (its shift). ``bias`` is not mixed,
    so the shift is right for routing weights of any sum. ``stride``, ``padding``, ``kernel_size`` ... can be read as
    on a torch layer, but not changed.

    Attributes:
        bank: in the layout of :mod:`~dynaconv.inference.bank`.
        scale: of an int8 bank, float32; else None.
        bias: ``(out,)`` or None.
        biases: ``(K, out)`` or None, the layer's own biases.
        dtype: of the computation; ``.to(dtype)``, ``.half()`` ... change it. A reduced bank keeps its own.
        strategy: ``"auto"``; or :data:`FROZEN`, the one call of a kernel of our own; or the name of an ordinary
            strategy (:mod:`dynaconv.ops`). It is obeyed, or the call raises ValueError. See :meth:`plan`.
        activation: the one that follows, where the layer can do it (ReLU, ReLU6, SiLU, hard-swish); else None.
    """

    bank: Tensor
    scale: Tensor | None
    bias: Tensor | None
    biases: Tensor | None

    stride, padding, dilation, groups = _Fixed(), _Fixed(), _Fixed(), _Fixed()
    padding_mode, transposed, output_padding = _Fixed(), _Fixed(), _Fixed()

    def __init__(
        self,
        geometry: Geometry,
        kernel_shape: Sequence[int],
        experts: int,
        router: nn.Module,
        *,
        dtype: torch.dtype,
        bank_dtype: str | None = None,
        strategy: str = "auto",
        activation: Activation | None = None,
    ) -> None:
        super().__init__()
        self.geometry, self.experts, self.kernel_shape = geometry, experts, tuple(kernel_shape)
        self.activation, self.strategy, self.dtype, self.bank_dtype = activation, strategy, dtype, bank_dtype
        out, inputs, *taps = self.kernel_shape
        self.layout = layout_of(geometry, self.kernel_shape)
        if geometry.dims:
            self.in_channels, self.out_channels, self.kernel_size = inputs * geometry.groups, out, tuple(taps)
        else:
            self.in_features, self.out_features = inputs, out
        for name in ("bank", "scale", "bias", "biases"):
            self.register_buffer(name, None)
        self.router = router

    @classmethod
    def of(cls, layer: Any, affine: Affine | None, router: nn.Module, **options: Any) -> FrozenLayer:
        """The frozen form of a dynamic layer, with the norm behind it; ``options`` as for the class."""
        weight, own = layer.mixed_bank().detach(), None if layer.bias is None else layer.bias.detach()
        made = cls(layer.geometry, weight.shape[1:], layer.experts, router, dtype=weight.dtype, **options)
        kernels = weight.double()
        if affine is not None:
            kernels = kernels * along_output(affine.scale, kernels, layer, leading=1)
            made.bias = affine.shift.to(made.dtype)
            own = None if own is None else (own.double() * affine.scale).to(made.dtype)
        made.biases = own
        kernels = lay_out(kernels, made.layout).to(made.dtype).contiguous()
        made.bank, made.scale = reduce_bank(kernels, made.bank_dtype, along=ALONG[made.layout])
        return made

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move and cast. A reduced bank and its scale are moved but not cast; ``dtype`` is that of the computation."""
        one_call.forget(self)
        self.dtype = fn(torch.empty(0, dtype=self.dtype)).dtype
        bank, scale = self.bank, self.scale
        if recurse:
            self.router._apply(fn)
        super()._apply(as_matrix(fn), recurse=False)
        if self.bank_dtype is not None:
            self.bank = bank.to(self.bank.device) if self.bank.dtype != bank.dtype else self.bank
            self.scale = None if scale is None or self.scale is None else scale.to(self.scale.device)
        return self

    def forward(self, x: Tensor, routing: Tensor | None = None) -> Tensor:
        """``routing`` ``(B, K)``, if given, is used in place of the router's weights."""
        if is_traced(x, routing):
            if routing is None and isinstance(self.router, ScopedRouter):
                routing = self.router(x)  # it comes from outside the layer, so in the graph it is an argument
            node: Tensor = as_node(self, x, routing)
            return node
        dims = self.geometry.dims
        if x.dim() == dims + 1:
            return self.forward(x.unsqueeze(0), routing).squeeze(0)
        self._check_input(x)
        padded, geometry = resolve_padding(x, self.kernel_shape[2:], self.geometry)
        refusal = self._why_not_in_one_call(padded)
        if routing is None and not (refusal is None and padded is x and one_call.can_route(self, x)):
            routing = self.router(x if dims else x.movedim(-1, 1))
        if routing is not None:
            self._check_routing(x, routing)
            if refusal is None and not torch.compiler.is_compiling():
                refusal = one_call.why_not_take(routing)
        if refusal is None:
            return (operator if torch.compiler.is_compiling() else one_call).run(self, padded, routing, geometry)
        assert routing is not None
        if self.strategy == FROZEN and x.shape[0]:
            raise ValueError(f"strategy {FROZEN!r} cannot run this call: {refusal}; freeze with another, or None")
        if not is_exporting() and x.shape[0] == 0:
            kernel = torch.zeros(self.kernel_shape, dtype=self.dtype, device=x.device)
            return self._activated(convolve(padded, kernel, None, geometry))
        return self._activated(self._convolved(padded, routing, geometry))

    def plan(self, x: Tensor) -> Plan:
        """Which strategy would run ``x``, why, and why not the others, :data:`FROZEN` among them.

        Where it is an ordinary one, a large batch runs in pieces, and the plan is that of the first piece.
        """
        x = x.unsqueeze(0) if x.dim() == self.geometry.dims + 1 else x
        self._check_input(x)
        if x.shape[0] == 0:
            return Plan("reference", EMPTY, dict.fromkeys((FROZEN, *STRATEGIES), EMPTY))
        padded, geometry = resolve_padding(x, self.kernel_shape[2:], self.geometry)
        refusal = self._why_not_in_one_call(padded)
        piece = padded[self._pieces(padded)[0]]
        kernels = piece.new_empty(1).to(self.dtype).expand(piece.shape[0], *self.kernel_shape)
        call = Call.of(piece, kernels, None, geometry)
        if refusal is not None:
            if self.strategy == FROZEN:
                raise ValueError(f"strategy {FROZEN!r} cannot run this call: {refusal}; freeze with another, or None")
            found = plan(call, self.strategy)
            return Plan(found.strategy, found.why, {FROZEN: refusal, **found.others})
        why = "one call of a kernel of our own does the router, the mixing, the convolution and what follows"
        others = {name: one.refusal(call) or "possible, but slower here" for name, one in STRATEGIES.items()}
        return Plan(FROZEN, "you asked for it" if self.strategy == FROZEN else why, others)

    def _why_not_in_one_call(self, x: Tensor) -> str | None:
        """Why the kernel of :mod:`~dynaconv.inference.one_call` may not run a padded input, or None."""
        if self.strategy not in ("auto", FROZEN):
            return f"you asked for {self.strategy!r}"
        if self.layout == "rows":
            return "it is for convolutions over images, in one group or depthwise"
        if self.dtype != torch.float32:
            return "it computes in float32 on a CPU"
        if self.strategy == "auto" and (reason := pays("frozen", batch=x.shape[0])) is not None:
            return reason
        if torch.compiler.is_compiling():
            return operator.why_not_compiled(x, asked=self.strategy == FROZEN)
        return why_not_readable(x)

    def _check_input(self, x: Tensor) -> None:
        dims, inputs = self.geometry.dims, self.kernel_shape[1] * self.geometry.groups
        if (x.dim() != dims + 2 or x.shape[1] != inputs) if dims else (x.dim() < 2 or x.shape[-1] != inputs):
            expected = f"(batch, {inputs}, *space) with {dims} dimensions of space" if dims else f"(batch, *, {inputs})"
            raise ValueError(f"input has shape {tuple(x.shape)}; expected {expected}")

    def _check_routing(self, x: Tensor, routing: Tensor) -> None:
        if routing.dim() != 2 or routing.shape[0] != x.shape[0] or routing.shape[1] != self.experts:
            raise ValueError(
                f"routing weights have shape {tuple(routing.shape)}; expected ({x.shape[0]}, {self.experts}), "
                "(batch, experts)"
            )
        if routing.is_complex():
            raise ValueError(f"routing weights are {routing.dtype}; expected real numbers")

    def _activated(self, y: Tensor) -> Tensor:
        if self.activation is None or self.activation == RELU:
            return y if self.activation is None else F.relu(y)
        kind, low, high = self.activation
        return F.hardtanh(y, low, high) if kind == "clamp" else {"silu": F.silu, "hardswish": F.hardswish}[kind](y)

    def _convolved(self, x: Tensor, routing: Tensor, geometry: Geometry) -> Tensor:
        pieces = self._pieces(x)
        if len(pieces) < 2:
            return self._piece(x, routing, geometry)
        return torch.cat([self._piece(x[piece], routing[piece], geometry) for piece in pieces])

    def _pieces(self, x: Tensor) -> list[slice]:
        """A few examples at a time, so that their kernels are used while they are in the cache."""
        if torch.compiler.is_compiling() or is_exporting():
            return [slice(None)]
        return list(loop.pieces(x.shape[0], self.bank[0].numel() * x.element_size()))

    def _piece(self, x: Tensor, routing: Tensor, geometry: Geometry) -> Tensor:
        kernels = read(self.mixed_kernels(routing), self.layout, self.kernel_shape)
        strategy = "auto" if self.strategy == FROZEN else self.strategy
        return convolve_each(x, kernels, self.mixed_biases(routing), geometry=geometry, strategy=strategy)

    def mixed_kernels(self, routing: Tensor) -> Tensor:
        """``(b, ...)``, the bank mixed, in its layout."""
        return mix_bank(self.bank, self.scale, routing, self.dtype)

    def mixed_biases(self, routing: Tensor) -> Tensor | None:
        """``(b, out)``"""
        if self.biases is None:
            return None if self.bias is None else self.bias.expand(routing.shape[0], -1)
        routed = routing.to(self.dtype) @ self.biases
        return routed if self.bias is None else routed + self.bias

    @property
    def weight(self) -> Tensor:
        """``(K, *kernel)``, the experts as they are used (the norm folded in), in ``dtype``; for code that reads it.

        A view of the bank where that is possible. Of a reduced bank, and of a convolution over images in one group, it
        is computed at every reading: where the dtype or the device is all that is wanted, read ``layer.dtype`` and
        ``layer.bank.device``.
        """
        bank = self.bank.to(self.dtype)
        return read(bank if self.scale is None else bank * self.scale.to(self.dtype), self.layout, self.kernel_shape)

    def extra_repr(self) -> str:
        stored = "" if self.bank_dtype is None else f", bank_dtype={self.bank_dtype!r}"
        return f"experts={self.experts}, kernel={self.kernel_shape}, strategy={self.strategy!r}{stored}"


def as_matrix(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """``fn`` applied to tensors as matrices: else ``.to(memory_format=...)`` would change the strides of a bank."""

    def apply(tensor: Tensor) -> Tensor:
        return fn(tensor.flatten(1)).unflatten(1, tensor.shape[1:]) if tensor.dim() > 2 else fn(tensor)

    return apply
