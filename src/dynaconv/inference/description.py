"""A module of this project as plain values, with the arguments that build it; and the module of such a description.

Modules of the libraries that this project does not know are never described.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from dynaconv import layers
from dynaconv.errors import UserError
from dynaconv.inference.bank import check_bank_dtype
from dynaconv.inference.layer import FROZEN, FrozenLayer
from dynaconv.inference.router import FrozenRouter
from dynaconv.kernels.cpu.arguments import Activation
from dynaconv.layers import DynamicLayer
from dynaconv.ops import Geometry
from dynaconv.ops.plan import check_choice
from dynaconv.routing import PooledRouter, Scope, ScopedRouter, SigmoidRouter, SoftmaxRouter, scopes_of

Description = dict[str, Any]
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.float64, torch.float32, torch.float16)}
_DTYPES["bfloat16"] = torch.bfloat16
_ROUTERS = {"SoftmaxRouter": SoftmaxRouter, "SigmoidRouter": SigmoidRouter}


def is_described(network: nn.Module) -> bool:
    """Whether a network is one layer of this project, which needs no other to be built."""
    described = describe(network, {}) is not None
    router = getattr(network, "router", None)
    return described and (router is None or describe(router, {}) is not None)


def describe(module: nn.Module, blocks: dict[Scope, str]) -> Description | None:
    """A module of this project with the arguments that build it; None for any other."""
    kind = type(module)
    if isinstance(module, DynamicLayer):
        return _describe_dynamic(module) if getattr(layers, kind.__name__, None) is kind else None
    if kind is FrozenLayer:
        return _describe_frozen(module)
    if kind is nn.Identity:
        return {"kind": "identity"}
    if kind is FrozenRouter:
        sizes = {"in_channels": module.in_channels, "experts": module.experts, "softmax": module.softmax}
        return {"kind": "frozen router", **sizes}
    if isinstance(module, ScopedRouter) and kind is ScopedRouter and module.scope in blocks:
        place = {"block": blocks[module.scope]}
        return {"kind": "scoped router", "in_channels": module.in_channels, "experts": module.experts, **place}
    if isinstance(module, PooledRouter) and kind in _ROUTERS.values():
        return _describe_router(module)
    return None


def _describe_dynamic(layer: Any) -> Description:
    geometry = layer.geometry
    if geometry.dims == 0:
        arguments = {"in_features": layer.in_features, "out_features": layer.out_features}
    else:
        names = (
            "in_channels",
            "out_channels",
            "kernel_size",
            "stride",
            "padding",
            "dilation",
            "groups",
            "padding_mode",
        )
        names += ("output_padding",) * geometry.transposed
        arguments = {name: _listed(getattr(layer, name)) for name in names}
    if isinstance(layer, layers.DynamicStdConv2d):
        arguments |= {"scale": layer.scale, "eps": layer.eps}
    own = {"experts": layer.experts, "strategy": layer.strategy, "bias": layer.bias is not None}
    return {"kind": "dynamic", "class": type(layer).__name__, "arguments": {**arguments, **own}}


def _describe_frozen(layer: Any) -> Description:
    activation = layer.activation
    if activation is not None:
        low, high = (value if math.isfinite(value) else None for value in activation[1:])
        activation = [activation.kind, low, high]
    return {
        "kind": "frozen",
        "geometry": {name: _listed(value) for name, value in asdict(layer.geometry).items()},
        "kernel_shape": list(layer.kernel_shape),
        "experts": layer.experts,
        "dtype": str(layer.dtype).removeprefix("torch."),
        "bank_dtype": layer.bank_dtype,
        "strategy": layer.strategy,
        "activation": activation,
    }


def _describe_router(router: PooledRouter) -> Description:
    width = None if router.hidden is None else router.hidden.out_features
    arguments = {
        "in_channels": router.in_channels,
        "experts": router.experts,
        "hidden": (width or 0) if isinstance(router, SoftmaxRouter) else width,
        "bias": router.fc.bias is not None,
        "expert_dropout": router.expert_dropout,
        "previous_experts": router.previous_experts,
    }
    return {"kind": "router", "class": type(router).__name__, "arguments": arguments}


def build_module(base: nn.Module | None, description: Description) -> nn.Module:
    """The module of a description, on the meta device."""
    kind = description.get("kind")
    if kind in ("same", "part") and base is not None:
        return base.get_submodule(description["as" if kind == "same" else "of"])
    if kind == "identity":
        return nn.Identity()
    if kind == "scoped router" and base is not None:
        scopes = {place.block: place.scope for place in scopes_of(base)}
        return ScopedRouter(scopes[description["block"]], description["in_channels"], description["experts"])
    if kind == "frozen router":
        sizes = {name: description[name] for name in ("in_channels", "experts", "softmax")}
        return FrozenRouter(**sizes)
    with torch.device("meta"):
        if kind == "router" and description["class"] in _ROUTERS:
            made: nn.Module = _ROUTERS[description["class"]](**description["arguments"])
            return made
        if kind == "dynamic" and _is_layer(description["class"]):
            return _build_dynamic(description, build_module(base, description["router"]))
        if kind == "frozen":
            return _build_frozen(description, build_module(base, description["router"]))
    raise UserError(f"the file describes a module of the kind {kind!r}, which this version does not know")


def _is_layer(name: str) -> bool:
    kind = getattr(layers, name, None)
    return isinstance(kind, type) and issubclass(kind, DynamicLayer)


def _build_dynamic(description: Description, router: nn.Module) -> nn.Module:
    arguments = {name: _tupled(value) for name, value in description["arguments"].items()}
    made: nn.Module = getattr(layers, description["class"])(**arguments, router=router, device="meta")
    return made


def _build_frozen(description: Description, router: nn.Module) -> nn.Module:
    activation = description["activation"]
    check_bank_dtype(description["bank_dtype"])
    if description["strategy"] != FROZEN:
        check_choice(description["strategy"])
    if activation is not None:
        kind, low, high = activation
        activation = Activation(kind, -math.inf if low is None else low, math.inf if high is None else high)
    return FrozenLayer(
        Geometry(**{name: _tupled(value) for name, value in description["geometry"].items()}),
        description["kernel_shape"],
        description["experts"],
        router,
        dtype=_DTYPES[description["dtype"]],
        bank_dtype=description["bank_dtype"],
        strategy=description["strategy"],
        activation=activation,
    )


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
