"""What distinguishes a dynamic or frozen network from the static one that it was made of, as plain values.

A :class:`Structure` lists the scopes, and every module that differs, with the arguments that build it. Tensors are not
in it. Modules of the libraries that this project does not know are never described: the origin builds them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from dynaconv.errors import UserError
from dynaconv.inference.description import Description, build_module, describe
from dynaconv.inference.layer import FrozenLayer
from dynaconv.layers import DynamicLayer
from dynaconv.routing import Place, scopes_of, share_router


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
        made = build_module(base, description)
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
    """Compares both module trees and records the differences."""

    def __init__(self, network: nn.Module, base: nn.Module | None, found: Structure) -> None:
        self.found = found
        self.seen: dict[int, str] = {}
        self.blocks = {place.scope: place.block for place in scopes_of(network)}
        self.base_blocks = {} if base is None else {place.scope: place.block for place in scopes_of(base)}

    def compare(self, name: str, live: nn.Module, base: nn.Module | None) -> None:
        if id(live) in self.seen:
            return self._same(name, live, base)
        self.seen[id(live)] = name
        described = describe(live, self.blocks)
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
        """A module that is used in several places is compared in the first of them."""
        first = self.seen[id(live)]
        described = any(first == done or first.startswith(f"{done}.") for done, _ in self.found.modules)
        if base is None or described:
            self.found.modules.append((name, {"kind": "same", "as": first}))

    def _described(self, name: str, live: nn.Module, base: nn.Module | None, described: Description) -> None:
        there = None if base is None else describe(base, self.base_blocks)
        if isinstance(live, (DynamicLayer, FrozenLayer)):
            own = describe(live.router, self.blocks) or self._kept_router(name, live.router, base)
            described = {**described, "router": own}
        if isinstance(base, (DynamicLayer, FrozenLayer)) and there is not None:
            theirs = describe(base.router, self.base_blocks) or {"kind": "part", "of": _join(name, "router")}
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


def _describe_scope(network: nn.Module, place: Place) -> Description:
    router = network.get_submodule(_join(place.block, "router"))
    described = describe(router, {})
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
            build_module(base, scope["router"]),
            name=scope["name"],
            until=None if scope["until"] == scope["block"] else base.get_submodule(scope["until"]),
            after=None if scope["after"] is None else opened[scope["after"]],
            reads=scope["reads"],
        )


def _changed(live: nn.Module, base: nn.Module) -> Description:
    """Plain attributes in which two modules of one class differ (for example a stride that was set later)."""
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


def _join(name: str, child: str) -> str:
    return f"{name}.{child}" if name else child


def _kind(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"
