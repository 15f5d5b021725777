"""What distinguishes a dynamic or frozen network from the static one that it was made of, as plain values.

A :class:`Structure` lists the scopes, and every module that differs, with the arguments that build it. Tensors are not
in it. Modules of the libraries that this project does not know are never described: the origin builds them.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from dynaconv import layers
from dynaconv.errors import UserError
from dynaconv.inference.layer import FrozenLayer
from dynaconv.inference.router import FrozenRouter
from dynaconv.kernels.cpu.arguments import Activation
from dynaconv.layers import DynamicLayer
from dynaconv.ops import Geometry
from dynaconv.routing import (
    Place,
    PooledRouter,
    Scope,
    ScopedRouter,
    SigmoidRouter,
    SoftmaxRouter,
    scopes_of,
    share_router,
)

Description = dict[str, Any]
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.float64, torch.float32, torch.float16)}
_DTYPES["bfloat16"] = torch.bfloat16
_ROUTERS = {"SoftmaxRouter": SoftmaxRouter, "SigmoidRouter": SigmoidRouter}


@dataclass
class Structure:
    """The difference of a network from the one that its origin builds.

    Attributes:
        scopes: those that the origin's network lacks, in the order in which they are opened.
        modules: ``(name, description)`` of every module that is another one.
        attributes: plain attributes of modules that are the same but for these: ``{module: {name: value}}``.
    """

    scopes: list[Description] = field(default_factory=list)
    modules: list[tuple[str, Description]] = field(default_factory=list)
    attributes: dict[str, Description] = field(default_factory=dict)


def is_described(network: nn.Module) -> bool:
    """Whether a network is one layer of this project, which needs no other to be built."""
    described = _describe(network, {}) is not None
    router = getattr(network, "router", None)
    return described and (router is None or _describe(router, {}) is not None)


def find_structure(network: nn.Module, base: nn.Module | None) -> Structure:
    """The structure with which :func:`apply_structure` makes ``network``'s tree of ``base``, which is changed.

    Raises:
        ValueError: a module that cannot be described and that the origin does not build.
    """
    found = Structure()
    if base is not None:
        known = {place.block for place in scopes_of(base)}
        found.scopes = [_describe_scope(network, place) for place in scopes_of(network) if place.block not in known]
        _open_scopes(base, found.scopes)
    _Walk(network, base, found).compare("", network, base)
    return found


def apply_structure(base: nn.Module | None, structure: Structure) -> nn.Module:
    """Put the described modules into ``base``; their tensors are on the meta device until they are loaded."""
    if base is not None:
        _open_scopes(base, structure.scopes)
    for name, description in structure.modules:
        made = _build(base, description)
        if not name or base is None:
            base = made
        else:
            base.set_submodule(name, made)
    if base is None:
        raise UserError("the file describes no network")
    for name, values in structure.attributes.items():
        module = base.get_submodule(name)
        for attribute, value in values.items():
            if attribute.startswith("_") or callable(getattr(module, attribute, None)):
                raise UserError(f"the file sets {attribute!r} of {name or 'the network'}, which is no plain setting")
            setattr(module, attribute, _thaw(value))
    return base


class _Walk:
    """Goes down both trees and notes what differs."""

    def __init__(self, network: nn.Module, base: nn.Module | None, found: Structure) -> None:
        self.found = found
        self.seen: dict[int, str] = {}
        self.blocks = {place.scope: place.block for place in scopes_of(network)}
        self.base_blocks = {} if base is None else {place.scope: place.block for place in scopes_of(base)}

    def compare(self, name: str, live: nn.Module, base: nn.Module | None) -> None:
        if id(live) in self.seen:
            return self._same(name, live, base)
        self.seen[id(live)] = name
        described = _describe(live, self.blocks)
        if described is not None:
            return self._described(name, live, base, described)
        if base is None:
            raise ValueError(f"{name or 'the network'} is {_kind(live)}, which the factory does not build")
        if type(live) is not type(base):
            return self._moved(name, live, base)
        for child in base._modules:
            if child not in live._modules:
                raise ValueError(f"{_join(name, child)} is missing; the factory builds it")
        for child, module in live._modules.items():
            if module is not None:
                self.compare(_join(name, child), module, base._modules.get(child))
        changed = _changed(live, base)
        if changed:
            self.found.attributes[name] = changed
        return None

    def _same(self, name: str, live: nn.Module, base: nn.Module | None) -> None:
        """A module that stands in several places: the first of them is compared."""
        first = self.seen[id(live)]
        described = any(first == done or first.startswith(f"{done}.") for done, _ in self.found.modules)
        if base is None or described:
            self.found.modules.append((name, {"kind": "same", "as": first}))

    def _described(self, name: str, live: nn.Module, base: nn.Module | None, described: Description) -> None:
        there = None if base is None else _describe(base, self.base_blocks)
        if isinstance(live, (DynamicLayer, FrozenLayer)):
            own = _describe(live.router, self.blocks) or self._kept_router(name, live.router, base)
            described = {**described, "router": own}
        if isinstance(base, (DynamicLayer, FrozenLayer)) and there is not None:
            theirs = _describe(base.router, self.base_blocks) or {"kind": "part", "of": _join(name, "router")}
            there = {**there, "router": theirs}
        if there != described:
            self.found.modules.append((name, described))

    def _kept_router(self, name: str, router: nn.Module, base: nn.Module | None) -> Description:
        place = _join(name, "router")
        theirs = None if base is None else base._modules.get("router")
        if type(theirs) is not type(router):
            raise ValueError(
                f"{place} is {_kind(router)}, a router of your own: give a factory that builds the dynamic network"
            )
        self.compare(place, router, theirs)
        return {"kind": "part", "of": place}

    def _moved(self, name: str, live: nn.Module, base: nn.Module) -> None:
        """What remains of a folded norm: its activation."""
        for child, module in base.named_children():
            if type(module) is type(live):
                self.found.modules.append((name, {"kind": "part", "of": _join(name, child)}))
                self.seen.pop(id(live), None)
                return self.compare(name, live, module)
        raise ValueError(
            f"{name or 'the network'} is {_kind(live)}; the factory builds {_kind(base)}: put the change into it"
        )


def _describe(module: nn.Module, blocks: dict[Scope, str]) -> Description | None:
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


def _describe_scope(network: nn.Module, place: Place) -> Description:
    router = network.get_submodule(_join(place.block, "router"))
    described = _describe(router, {})
    if described is None:
        raise ValueError(
            f"{place.block} shares {_kind(router)}, a router of your own: give a factory of the dynamic network"
        )
    named = {"name": place.scope.name, "block": place.block, "until": place.until, "after": place.after}
    return {**named, "reads": place.reads, "router": described}


def _open_scopes(base: nn.Module, scopes: list[Description]) -> None:
    for scope in scopes:
        opened = {place.block: place.scope for place in scopes_of(base)}
        share_router(
            base.get_submodule(scope["block"]),
            _build(base, scope["router"]),
            name=scope["name"],
            until=None if scope["until"] == scope["block"] else base.get_submodule(scope["until"]),
            after=None if scope["after"] is None else opened[scope["after"]],
            reads=scope["reads"],
        )


def _build(base: nn.Module | None, description: Description) -> nn.Module:
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
            return _build_dynamic(description, _build(base, description["router"]))
        if kind == "frozen":
            return _build_frozen(description, _build(base, description["router"]))
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


def _changed(live: nn.Module, base: nn.Module) -> Description:
    """Plain attributes in which two modules of one class differ (a stride that was set later, a rate of dropout)."""
    ours, theirs = _plain_attributes(live), _plain_attributes(base)
    return {name: value for name, value in ours.items() if name not in theirs or theirs[name] != value}


def _plain_attributes(module: nn.Module) -> Description:
    found: Description = {}
    for name, value in vars(module).items():
        if name.startswith("_") or name == "training":
            continue
        if isinstance(value, (bool, int, str, type(None))) or (isinstance(value, float) and math.isfinite(value)):
            found[name] = value
        elif isinstance(value, (tuple, list)) and all(isinstance(item, (bool, int, float, str)) for item in value):
            found[name] = {"tuple": list(value)} if isinstance(value, tuple) else list(value)
    return found


def _thaw(value: Any) -> Any:
    return tuple(value["tuple"]) if isinstance(value, dict) else value


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _join(name: str, child: str) -> str:
    return f"{name}.{child}" if name else child


def _kind(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"
