"""How the static network behind a saved one is built: by timm, by torchvision, or by a function that you name.

A file never names code that runs by itself: timm's and torchvision's own registries are asked for their own names, and
any other function must be given again when the file is loaded.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from dynaconv.errors import UserError
from dynaconv.inference.functions import find_function

Factory = Callable[..., nn.Module] | str

# Arguments with which these libraries would download or read files: a saved file must not cause that.
_FORBIDDEN = re.compile(r"pretrained|checkpoint|cache|scriptable|exportable|weights|url|file|hub")
_OVERLAY = ("input_size", "pool_size", "crop_pct", "interpolation", "mean", "std")
_NOT_FOR_INFERENCE = "pretrained_cfg_overlay"


@dataclass(frozen=True)
class Origin:
    """What builds the static network.

    Attributes:
        kind: ``"timm"``, ``"torchvision"``, ``"factory"``, or ``"none"``: the network is one layer that needs none.
        name: timm's or torchvision's name, or ``"package.module:function"``.
        arguments: its keyword arguments, plain values.
    """

    kind: str
    name: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)


def find_origin(network: nn.Module, factory: Factory | None, arguments: Mapping[str, Any] | None) -> Origin:
    """What builds ``network``: the factory that is given, or what the network says of itself.

    Raises:
        ValueError: it is not known.
    """
    if factory is not None:
        return _of_factory(factory, dict(arguments or {}))
    if arguments:
        raise ValueError("arguments are those of a factory: give factory= too")
    known = network.__dict__.get("dynaconv_origin")
    if isinstance(known, Origin):
        return known
    config = getattr(network, "pretrained_cfg", None)
    architecture = config.get("architecture") if isinstance(config, dict) else getattr(config, "architecture", None)
    if isinstance(architecture, str) and architecture:
        return Origin("timm", architecture, _plain(_timm_arguments(network, config), architecture))
    raise ValueError(
        f"it is not known how {type(network).__name__} is built: give factory='package.module:function' (or the "
        "function itself) and arguments={...}, with which it returns the static network, or the network as it is"
    )


def build(origin: Origin, factory: Factory | None = None) -> nn.Module | None:
    """Build the static network; None if there is none. The state of torch's random number generator is not changed.

    Raises:
        ValueError: the origin needs a factory and none is given, or it does not return a module.
    """
    if origin.kind == "none" and factory is None:
        return None
    make, name = _maker(origin, factory)
    with torch.random.fork_rng(devices=[]):
        try:
            made = make(**origin.arguments)
        except Exception as error:  # whatever the factory raises
            raise UserError(f"{name} with {origin.arguments} failed: {type(error).__name__}: {error}") from error
    if not isinstance(made, nn.Module):
        raise UserError(f"{name} returned {type(made).__name__}; expected a torch.nn.Module")
    return made


def _of_factory(factory: Factory, arguments: dict[str, Any]) -> Origin:
    name = factory if isinstance(factory, str) else f"{factory.__module__}:{getattr(factory, '__qualname__', '')}"
    package, _, function = name.partition(":")
    arguments = _plain(arguments, name)
    if package.startswith("torchvision.models") and function.isidentifier():
        return Origin("torchvision", function, arguments)
    return Origin("factory", name, arguments)


def _plain(arguments: dict[str, Any], name: str) -> dict[str, Any]:
    try:
        made: dict[str, Any] = json.loads(json.dumps(arguments, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the arguments of {name} cannot be written as plain values ({error}): give factory=, a function that "
            "needs none of them"
        ) from error
    return made


def _timm_arguments(network: nn.Module, config: Any) -> dict[str, Any]:
    """The arguments that the network was built with, as far as it tells; the rest is compared after building."""
    given = network.__dict__.get("zoo_arguments")
    if given is None:
        given = {"in_chans": _input_channels(network)} if _input_channels(network) != 3 else {}
    made = {name: value for name, value in given.items() if not name.startswith("drop_")}
    if isinstance(classes := getattr(network, "num_classes", None), int):
        made["num_classes"] = classes
    values = config if isinstance(config, dict) else vars(config)
    overlay = {name: values[name] for name in _OVERLAY if values.get(name) is not None}
    return {**made, _NOT_FOR_INFERENCE: overlay}


def _input_channels(network: nn.Module) -> int:
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return next((module.in_channels for module in network.modules() if isinstance(module, kinds)), 3)


def _maker(origin: Origin, factory: Factory | None) -> tuple[Callable[..., nn.Module], str]:
    if factory is not None:
        try:
            made = find_function(factory) if isinstance(factory, str) else factory
        except UserError as error:
            raise UserError(f"factory is {factory!r}: {error}") from error
        return made, factory if isinstance(factory, str) else getattr(factory, "__qualname__", repr(factory))
    if origin.kind == "factory":
        raise UserError(
            f"this network is built by {origin.name!r}, and a file does not decide what code runs: "
            f"give factory={origin.name!r} (or the function itself)"
        )
    _check_arguments(origin)
    return (_timm if origin.kind == "timm" else _torchvision)(origin.name), f"{origin.kind}'s {origin.name}"


def _check_arguments(origin: Origin) -> None:
    bad = [
        name
        for name, value in origin.arguments.items()
        if name != _NOT_FOR_INFERENCE and _FORBIDDEN.search(name) and value not in (None, False)
    ]
    overlay = origin.arguments.get(_NOT_FOR_INFERENCE, {})
    bad += [name for name in overlay if name not in _OVERLAY] if isinstance(overlay, dict) else [_NOT_FOR_INFERENCE]
    if bad or not origin.name.replace(".", "").isidentifier():
        raise UserError(f"{origin.kind} is asked for {origin.name!r} with {', '.join(bad) or 'no known name'}: refused")


def _timm(name: str) -> Callable[..., nn.Module]:
    import timm

    if not timm.is_model(name):
        importlib.import_module("dynaconv.models")  # registers the papers' networks; a room above, known by name only
    if not timm.is_model(name):
        raise UserError(f"timm {timm.__version__} knows no network {name!r}")
    return lambda **arguments: timm.create_model(name, **_as_timm(arguments))


def _as_timm(arguments: dict[str, Any]) -> dict[str, Any]:
    """JSON has no tuples, and timm's preprocessing is made of them."""
    overlay = arguments.get(_NOT_FOR_INFERENCE)
    if overlay is None:
        return arguments
    tuples = {name: tuple(value) if isinstance(value, list) else value for name, value in overlay.items()}
    return {**arguments, _NOT_FOR_INFERENCE: tuples}


def _torchvision(name: str) -> Callable[..., nn.Module]:
    from torchvision import models

    if name not in models.list_models():
        raise UserError(f"torchvision knows no network {name!r}")
    builder = models.get_model_builder(name)
    names = builder.__wrapped__.__code__.co_varnames if hasattr(builder, "__wrapped__") else ()
    nothing = {word: None for word in ("weights", "weights_backbone") if word in names}
    return lambda **arguments: builder(**{**nothing, **arguments})
