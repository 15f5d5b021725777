"""A frozen layer on a CPU, in channels_last, in one call of a C kernel: router, mixing, convolution and activation.

Mixed kernels stay in the cache. Bias, activation and the sums for the next router are computed while an output is in
the cache.
"""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from dynaconv.inference.bank import Layout
from dynaconv.inference.channel_sums import remember, remembered
from dynaconv.inference.router import FEW, FrozenRouter
from dynaconv.kernels.cpu.arguments import IDENTITY, KINDS, Activation
from dynaconv.kernels.cpu.inference import LinearRouter, PreparedLayer, frozen_layer, prepare_layer
from dynaconv.ops import Geometry
from dynaconv.ops.call import is_plain


class Frozen(Protocol):
    """What the call reads of a :class:`~dynaconv.inference.FrozenLayer`."""

    bank: Tensor
    layout: Layout
    kernel_shape: tuple[int, ...]
    experts: int
    activation: Activation | None
    router: Any
    _buffers: dict[str, Tensor | None]


class Prepared(NamedTuple):
    """A layer prepared for one input size. Before every use its addresses are compared with those of the layer."""

    layer: PreparedLayer
    addresses: tuple[int | None, ...]


_SIZES = 16  # number of input sizes for which a prepared layer is kept

# Outside the layers, which are copied and pickled.
_prepared: weakref.WeakKeyDictionary[Frozen, dict[Any, Prepared]] = weakref.WeakKeyDictionary()


def can_route(layer: Frozen, x: Tensor) -> bool:
    """Whether the kernel can run the layer's router too: a router of the papers, without hooks, and few examples."""
    router = layer.router
    return (
        x.shape[0] <= FEW
        and type(router) is FrozenRouter
        and router.fc_weight.dtype == torch.float32
        and router.fc_weight.device.type == "cpu"
        and router.in_channels == x.shape[1]
        and not (router._forward_hooks or router._forward_pre_hooks)
    )


def why_not_take(routing: Tensor) -> str | None:
    """Why the kernel may not read routing weights that were computed outside, or None."""
    if routing.device.type != "cpu" or not is_plain(routing):
        return "the routing weights are no ordinary tensor on the CPU"
    if routing.requires_grad and torch.is_grad_enabled():
        return "the routing weights need a gradient, and this kernel has none"
    return None


def forget(layer: Frozen) -> None:
    """Drop the prepared layers: the tensors of the layer are about to be moved or cast."""
    _prepared.pop(layer, None)


def run(layer: Frozen, x: Tensor, routing: Tensor | None, geometry: Geometry) -> Tensor:
    """``activation(conv(x[b], kernel[b]) + bias[b])``, and its sums remembered; ``x`` is ``readable``.

    ``routing`` None: the layer's router runs too; see :func:`can_route`.
    """
    known = remembered(x) if routing is None else None
    y, sums = call(_of(layer, x, geometry), x, routing, known)
    remember(y, sums)
    return y


def call(prepared: Prepared, x: Tensor, routing: Tensor | None, known: Tensor | None) -> tuple[Tensor, Tensor]:
    """The output and its sums over space. ``known`` are the sums of ``x``; None to compute them."""
    weights = None if routing is None else routing.to(torch.float32).contiguous().resolve_neg()
    return frozen_layer(prepared.layer, x, weights, known)


def _of(layer: Frozen, x: Tensor, geometry: Geometry) -> Prepared:
    sizes = _prepared.setdefault(layer, {})
    key = (*x.shape[2:], geometry.padding, layer.activation)
    addresses = tuple(None if tensor is None else tensor.data_ptr() for tensor in tensors_of(layer))
    found = sizes.get(key)
    if found is None or found.addresses != addresses:
        if len(sizes) >= _SIZES:
            sizes.clear()
        found = sizes[key] = prepare(layer, x, geometry, addresses)
    return found


def tensors_of(layer: Frozen) -> tuple[Tensor | None, ...]:
    own, router = layer._buffers, layer.router
    if type(router) is not FrozenRouter:
        return own["bank"], own["scale"], own["bias"], own["biases"], None, None, None, None
    its = router._buffers
    last = its["hidden_weight"], its["hidden_bias"], its["fc_weight"], its["fc_bias"]
    return own["bank"], own["scale"], own["bias"], own["biases"], *last


def prepare(layer: Frozen, x: Tensor, geometry: Geometry, addresses: tuple[int | None, ...]) -> Prepared:
    _check(layer)
    bank, scale, bias, biases, hidden_weight, hidden_bias, fc_weight, fc_bias = tensors_of(layer)
    assert bank is not None, "a frozen layer has a bank"
    router = None
    if fc_weight is not None and layer.router.in_channels == x.shape[1]:
        router = LinearRouter(hidden_weight, hidden_bias, fc_weight, fc_bias, layer.router.softmax)
    prepared = prepare_layer(
        *(x.shape[1:], layer.kernel_shape[0], layer.kernel_shape[2:]),
        *(geometry.stride, geometry.padding, geometry.dilation),
        depthwise=layer.layout == "taps",
        bank=bank,
        scale=scale,
        bias=bias,
        biases=biases,
        activation=layer.activation or IDENTITY,
        router=router,
    )
    return Prepared(prepared, addresses)


def _check(layer: Frozen) -> None:
    """Raise ValueError unless the kernel can read every tensor of the layer, once for all calls with these tensors."""
    for index, tensor in enumerate(tensors_of(layer)):
        stored = set(KINDS) if index == 0 else {torch.float32}
        if tensor is not None and not (
            tensor.dtype in stored and tensor.device.type == "cpu" and tensor.is_contiguous()
        ):
            raise ValueError(
                f"a frozen layer's {_NAMES[index]} is {tensor.dtype} on {tensor.device}, contiguous: "
                f"{tensor.is_contiguous()}; expected {' or '.join(sorted(map(str, stored)))} on the CPU, contiguous, "
                "as the input is: move and cast the whole network, not its tensors one by one"
            )


_NAMES = (
    "bank",
    "scale",
    "bias",
    "biases",
    "router.hidden_weight",
    "router.hidden_bias",
    "router.fc_weight",
    "router.fc_bias",
)
