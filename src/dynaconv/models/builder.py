"""Builds a network from its description, and registers it with timm: ``timm.create_model("dy_mobilenetv2_050")``.

A family's file (``mobilenetv2.py``, ...) describes its networks and calls :func:`register`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, cast

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from dynaconv.models.networks import FEATURES, NETWORKS
from dynaconv.models.options import Design, Options, check_arguments, se_of
from dynaconv.models.spec import NetworkSpec
from dynaconv.models.timm_private import pretrained_cfg_for_features, resolve_bn_args

ZOO: dict[str, NetworkSpec] = {}
"""Every registered network by its name."""


@dataclass(frozen=True)
class OtherNetwork:
    """A network of another task than classification: its input, where the paper describes it, what it published."""

    input_size: tuple[int, int, int]
    row: str
    remark: str = ""


OTHERS: dict[str, OtherNetwork] = {}
"""Every network that :func:`register_entrypoint` made known."""

TWINS: dict[str, tuple[str, str]] = {}
"""For the name of a static network of :data:`OTHERS` its dynamic twin: the method, and that network's name."""

default_cfgs: dict[str, Any] = {}  # timm looks for it under this name

# Arguments that timm's factory passes in addition to those of the network's class.
_OF_THE_FACTORY = (
    *("features_only", "out_indices", "feature_cfg", "feature_cls", "pretrained_cfg", "pretrained_cfg_overlay"),
    *("pretrained_strict", "pretrained_model_args", "cache_dir", "bn_eps", "bn_momentum", "in_chans", "num_classes"),
)
_OF_CREATE_MODEL = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
_SAVED = ("bn_eps", "bn_momentum", "in_chans", "num_classes")
_OF_THE_HEAD = ("num_classes", "num_features", "head_conv", "head_bias", "head_norm", "global_pool")
# Arguments that the description of a network sets; a caller cannot.
_DECLARED = ("self", "args", "kwargs", "block_args", "block", "layers", "last_se", "stem_size", "num_features")


def register(*specs: NetworkSpec) -> None:
    """Make networks known to timm by their names, and list them in :data:`ZOO`."""
    for spec in specs:
        ZOO[spec.name] = spec
        default_cfgs.update(generate_default_cfgs({f"{spec.name}.untrained": _config(spec)}))
        register_model(_entrypoint(spec))


def register_entrypoint(
    name: str,
    make: Callable[..., nn.Module],
    input_size: tuple[int, int, int],
    num_classes: int,
    row: str,
    remark: str = "",
) -> None:
    """Make a network of another task known to timm: ``timm.create_model(name, **kwargs)`` calls ``make(**kwargs)``.

    Args:
        make: builds the network; TypeError for an argument that it does not take.
        input_size: of one image.
        num_classes: by default; for keypoint networks the number of keypoints.
        row: where the paper describes it.
        remark: what it published, for :data:`OTHERS`.
    """
    OTHERS[name] = OtherNetwork(input_size, row, remark)
    register_class(name, make, input_size, num_classes, row)


def register_class(
    name: str, make: Callable[..., nn.Module], input_size: tuple[int, int, int], num_classes: int, doc: str = ""
) -> None:
    """Make a network known to timm that is none of the papers' and is not listed with them.

    Args:
        name: for ``timm.create_model``.
        make: builds the network, with ``num_classes`` among its arguments or what its task has in place of it.
        input_size: of one image.
        num_classes: by default.
        doc: of the function that timm keeps.
    """
    config = {
        "url": "",
        "num_classes": num_classes,
        "input_size": input_size,
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
    }

    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        for argument in _OF_CREATE_MODEL:
            kwargs.pop(argument, None)
        if pretrained:
            raise ValueError(f"{name} has no published weights; leave `pretrained` out")
        check_arguments(name, kwargs, inspect.signature(make).parameters)
        model = make(**kwargs)
        model.__dict__["pretrained_cfg"] = model.__dict__["default_cfg"] = {**config, "architecture": name}
        return model

    create.__name__ = create.__qualname__ = name
    create.__doc__ = doc
    default_cfgs.update(generate_default_cfgs({f"{name}.untrained": config}))
    register_model(create)


def countable(network: nn.Module) -> nn.Module:
    """A detector without its post-processing, which depends on the values found; every other network as it is."""
    part: nn.Module = network.raw() if hasattr(network, "raw") else network  # type: ignore[operator]
    return part


def build(spec: NetworkSpec, pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Build a network of this package; the entrypoint that timm calls.

    Args:
        spec: which one.
        pretrained: as in timm; there are no published weights, so it needs a ``pretrained_cfg`` that names some.
        kwargs: the choices of :class:`dynaconv.models.Options`, and what timm's class takes (``num_classes``,
            ``in_chans``, ``drop_rate``, ``drop_path_rate``, ``bn_eps``, ``bn_momentum``, ``pad_type``, ...), or
            ``features_only`` with ``out_indices``.

    Raises:
        ValueError: an impossible value.
        TypeError: an argument that the network does not take.
    """
    kind = spec.architecture.kind
    check_arguments(spec.name, kwargs, known_arguments(spec))
    given = {name: value for name, value in kwargs.items() if name not in _OF_THE_FACTORY or name in _SAVED}
    options = Options.take(kwargs)
    arguments = _arguments(spec, options, kwargs)
    features_only = kwargs.pop("features_only", False)
    # timm has classes for the features of mobile networks, and wraps the others.
    own_class = features_only and kind in FEATURES and not {"feature_cfg", "feature_cls"} & set(kwargs)
    network = (FEATURES if own_class else NETWORKS)[kind]
    design = Design.of(spec, options)
    model = build_model_with_cfg(
        network.static_class if options.static else partial(network, design=design),
        spec.name,
        pretrained,
        features_only=features_only and not own_class,
        kwargs_filter=_OF_THE_HEAD if own_class else None,  # type: ignore[arg-type]  # timm means any tuple
        **{"pretrained_strict": not own_class, **arguments, **kwargs},
    )
    model.__dict__["zoo_arguments"] = given  # what rebuilds it: saved with its weights
    if own_class:
        features_cfg = pretrained_cfg_for_features(cast(dict[str, Any], model.pretrained_cfg))
        model.__dict__.update(pretrained_cfg=features_cfg, default_cfg=features_cfg)
    return model


def known_arguments(spec: NetworkSpec) -> set[str]:
    """The names of all arguments that a network takes."""
    kind = spec.architecture.kind
    classes = [NETWORKS[kind].static_class, *([FEATURES[kind].static_class] if kind in FEATURES else [])]
    parameters = {name for cls in classes for base in cls.__mro__[:2] for name in inspect.signature(base).parameters}
    own = {field.name for field in fields(Options)}
    return (parameters | own | set(_OF_THE_FACTORY)) - set(_DECLARED)


def _arguments(spec: NetworkSpec, options: Options, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of timm's class that the description and the options decide; takes what it uses from ``kwargs``."""
    depth = spec.depth if options.depth_multiplier is None else options.depth_multiplier
    width = spec.width if options.width_multiplier is None else options.width_multiplier
    arguments = spec.architecture.arguments(width=width, depth=depth, se=se_of(spec, options))
    arguments["drop_rate"] = kwargs.pop("drop_rate", spec.drop_rate)
    arguments["drop_path_rate"] = kwargs.pop("drop_path_rate", spec.drop_path_rate)
    normalisation = resolve_bn_args(kwargs)
    if normalisation:
        arguments["norm_layer"] = partial(kwargs.pop("norm_layer", nn.BatchNorm2d), **normalisation)
    return {**arguments, **{name: kwargs.pop(name) for name in list(kwargs) if name in arguments}}


def _config(spec: NetworkSpec) -> dict[str, Any]:
    """timm's description of a network without weights."""
    resnet = spec.architecture.kind == "resnet"
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "conv1" if resnet else "conv_stem",
        "classifier": "fc" if resnet else "classifier",
    }


def _entrypoint(spec: NetworkSpec) -> Callable[..., nn.Module]:
    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        return build(spec, pretrained, **kwargs)

    create.__name__ = create.__qualname__ = spec.name
    create.__doc__ = f"{spec.row}; see dynaconv.models.Options."
    return create
