"""The one-call kernel as an operator of torch, ``dynaconv::frozen_layer``: torch.compile keeps it in its graphs.

Eager calls go directly to C (:mod:`~dynaconv.inference.one_call`), without the dispatcher. In a compiled graph layers
cannot keep sums for the next router. So the operator returns the sums of its output and accepts those of its input;
:mod:`~dynaconv.inference.compiled` connects the two. If none are given, the kernel computes them from the map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dynaconv.inference import one_call
from dynaconv.inference.bank import Layout
from dynaconv.inference.one_call import Frozen, Prepared
from dynaconv.inference.router import FrozenRouter
from dynaconv.kernels.cpu import why_not
from dynaconv.kernels.cpu.arguments import IDENTITY, Activation
from dynaconv.ops import Geometry, output_space
from dynaconv.torch_private import constant_for_compiler, is_exporting

_LIBRARY = torch.library.Library("dynaconv", "FRAGMENT")
_LIBRARY.define(
    "frozen_layer(Tensor x, Tensor? sums, Tensor? routing, Tensor bank, Tensor? scale, Tensor? bias, Tensor? biases, "
    "Tensor? hidden_weight, Tensor? hidden_bias, Tensor? fc_weight, Tensor? fc_bias, int[] kernel_shape, "
    "int[2] stride, int[2] padding, int[2] dilation, int groups, bool softmax, str activation, float? low, "
    "float? high) -> (Tensor, Tensor)",
    # torch.compile may change layouts inside its own code, but must call this operator with the strides that it traced.
    tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides),
)
_KEPT = 4096  # layers at one input size each; what is kept holds addresses, no tensors
_prepared: dict[Any, Prepared] = {}


@constant_for_compiler
def _why_no_kernels() -> str | None:
    return why_not()


def why_not_compiled(x: Tensor, asked: bool) -> str | None:
    """Why the operator may not run a padded input that a compiler traces, or None; ``asked``: by name."""
    if is_exporting() and not asked:
        return "an exported graph must run where this library is not installed"
    if x.dtype != torch.float32 or x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return "it computes in float32 on a CPU"
    # An exporter has no choice of layout, and the operator converts.
    if x.dim() != 4 or not (is_exporting() or x.is_contiguous(memory_format=torch.channels_last)):
        return "the input is no map in channels_last"
    if x.shape[0] == 0:
        return "the batch is empty"
    if x.requires_grad and torch.is_grad_enabled():
        return "the input needs a gradient, and this kernel has none"
    reason = _why_no_kernels()
    return None if reason is None else f"the kernels are not available: {reason}"


def run(layer: Frozen, x: Tensor, routing: Tensor | None, geometry: Geometry) -> Tensor:
    """As :func:`one_call.run`, as one node of a graph."""
    activation = layer.activation or IDENTITY
    low, high = (bound if math.isfinite(bound) else None for bound in (activation.low, activation.high))
    tensors = one_call.tensors_of(layer)
    softmax = routing is None and layer.router.softmax
    y: Tensor = torch.ops.dynaconv.frozen_layer.default(
        *(x, None, routing, *tensors[:4], *(tensors[4:] if routing is None else (None,) * 4)),
        *(layer.kernel_shape, geometry.stride, geometry.padding, geometry.dilation, geometry.groups),
        *(softmax, activation.kind, low, high),
    )[0]
    return y


class _Layer:
    """A layer's tensors and settings, as the operator gets them."""

    def __init__(
        self, tensors: Sequence[Tensor | None], kernel_shape: Sequence[int], groups: int, softmax: bool
    ) -> None:
        bank, scale, bias, biases, *router = tensors
        assert bank is not None
        self.bank, self.kernel_shape, self.experts = bank, tuple(kernel_shape), bank.shape[0]
        self.layout: Layout = "panels" if groups == 1 else "taps"
        self.activation: Activation | None = None
        self._buffers = {"bank": bank, "scale": scale, "bias": bias, "biases": biases}
        self.router: Any = None
        if router[2] is not None:
            self.router = FrozenRouter(kernel_shape[1] * groups, self.experts, softmax=softmax)
            names = ("hidden_weight", "hidden_bias", "fc_weight", "fc_bias")
            self.router._buffers.update(zip(names, router, strict=True))


def _run(x: Tensor, sums: Tensor | None, routing: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor]:
    tensors, settings = rest[:8], rest[8:]
    x = x.contiguous(memory_format=torch.channels_last)
    addresses = tuple(None if tensor is None else tensor.data_ptr() for tensor in tensors)
    shapes = tuple(None if tensor is None else (tensor.shape, tensor.dtype) for tensor in tensors)
    key = (x.shape[1:], addresses, shapes, *(tuple(each) if isinstance(each, list) else each for each in settings))
    found = _prepared.get(key)
    if found is None:
        if len(_prepared) >= _KEPT:
            _prepared.clear()
        found = _prepared[key] = _prepare(x, tensors, addresses, *settings)
    return one_call.call(found, x, routing, sums)


def _prepare(
    x: Tensor,
    tensors: Sequence[Tensor | None],
    addresses: tuple[int | None, ...],
    kernel_shape: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    softmax: bool,
    activation: str,
    low: float | None,
    high: float | None,
) -> Prepared:
    layer = _Layer(tensors, kernel_shape, groups, softmax)
    layer.activation = Activation(activation, -math.inf if low is None else low, math.inf if high is None else high)
    geometry = Geometry(dims=2, stride=stride, padding=padding, dilation=dilation, groups=groups)
    return one_call.prepare(layer, x, geometry, addresses)


def _fake(x: Tensor, sums: Tensor | None, routing: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor]:
    kernel_shape, stride, padding, dilation, groups = rest[8:13]
    geometry = Geometry(dims=2, stride=stride, padding=padding, dilation=dilation, groups=groups)
    height, width = output_space(x.shape[2:], kernel_shape[2:], geometry)
    y = x.new_empty(x.shape[0], height, width, kernel_shape[0]).permute(0, 3, 1, 2)
    return y, x.new_empty(x.shape[0], kernel_shape[0])


_LIBRARY.impl("frozen_layer", _run, "CPU")
torch.library.register_fake("dynaconv::frozen_layer", _fake, lib=_LIBRARY)
