"""timm's CondConv checkpoints (``tf_efficientnet_cc_b0_4e``, ``..._b0_8e``, ``..._b1_8e``), into our layers and back.

timm keeps a block's linear router as ``routing_fn`` and a bank as ``(K, out * in / groups * k * k)``, row-major; here
the router is ``router.fc`` and the bank ``(K, out, in / groups, k, k)``. Both have the same numbers in the same order,
so weights are bit-equal after conversion in both directions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

import timm
import torch
from timm.layers import CondConv2d, Conv2dSame
from timm.models import EfficientNet
from torch import Tensor, nn

from dynaconv.errors import shortened, suggest
from dynaconv.models.builder import ZOO, build

# timm's name without "tf_" -> our network and K. B1 is B0-depth at 240 pixels: ceil(1.1 * repeats) is the same.
NAMES: dict[str, tuple[str, int]] = {
    "efficientnet_cc_b0_4e": ("condconv_efficientnet_b0", 4),
    "efficientnet_cc_b0_8e": ("condconv_efficientnet_b0", 8),
    "efficientnet_cc_b1_8e": ("condconv_efficientnet_b0_depth", 8),
}
_KNOWN = [f"{prefix}{name}" for name in NAMES for prefix in ("tf_", "")]
_TF_EPS = 1e-3


def from_timm(source: nn.Module | Mapping[str, Tensor] | str, *, pretrained: bool = True) -> nn.Module:
    """A CondConv network of timm as a network of ours: the same outputs from the same weights.

    Args:
        source: timm's model; its state dict (taken as that of a ``tf_`` variant: SAME padding, BN eps 1e-3); or its
            name.
        pretrained: for a name: fetch the published weights (needs the network), or draw new ones.

    Returns:
        A ``condconv_efficientnet_b0`` (or ``_depth`` for b1) with ``pad_type="same"`` for the ``tf_`` variants, in
        evaluation or training mode as ``source`` is (a state dict: evaluation).

    Raises:
        ValueError: no CondConv network of timm, or one of another kind.
        RuntimeError: the published weights cannot be downloaded.
    """
    if isinstance(source, str):
        source = _create(source, pretrained)
    if not isinstance(source, nn.Module):
        return _from_state(dict(source))
    if not isinstance(source, EfficientNet) or not any(isinstance(module, CondConv2d) for module in source.modules()):
        raise ValueError(f"{type(source).__name__} is no CondConv network of timm. Known: {', '.join(_KNOWN)}.")
    state = source.state_dict()
    name = _name_of(state)
    config = dict(getattr(source, "pretrained_cfg", {}))
    norm = cast(nn.BatchNorm2d, source.bn1)
    model = _build(
        name,
        state,
        tf=isinstance(source.conv_stem, Conv2dSame),
        bn_eps=norm.eps,
        bn_momentum=norm.momentum,
        drop_rate=source.drop_rate,
        drop_path_rate=_drop_path(source),
        pretrained_cfg_overlay={key: config[key] for key in _PREPROCESSING if key in config},
    )
    return model.to(source.conv_stem.weight.device).train(source.training)


def to_timm(model: nn.Module) -> EfficientNet:
    """The CondConv network of timm that computes what ``model`` computes; the inverse of :func:`from_timm`.

    Raises:
        ValueError: ``model`` has another structure than timm's CondConv networks.
    """
    state = model.state_dict()
    theirs = {_their_key(key): tensor.flatten(1) if _is_bank(key, tensor) else tensor for key, tensor in state.items()}
    name = _name_of(theirs)
    stem = model.get_submodule("conv_stem")
    norm = cast(nn.BatchNorm2d, model.get_submodule("bn1"))
    same = isinstance(stem, Conv2dSame)
    config = dict(getattr(model, "pretrained_cfg", {}))
    made: nn.Module = timm.create_model(
        f"{'tf_' if same else ''}{name}",
        bn_eps=norm.eps,
        bn_momentum=norm.momentum,
        drop_rate=model.drop_rate,
        drop_path_rate=_drop_path(model),
        pretrained_cfg_overlay={key: config[key] for key in _PREPROCESSING if key in config},
        **_sizes(theirs),
    )
    _load(made.to(theirs["conv_stem.weight"].dtype), theirs, name)
    return cast(EfficientNet, made.to(cast(Tensor, stem.weight).device).train(model.training))


_PREPROCESSING = ("input_size", "pool_size", "crop_pct", "interpolation", "mean", "std")


def _create(name: str, pretrained: bool) -> nn.Module:
    if name.split(".")[0] not in _KNOWN:
        raise ValueError(f"{name!r} is no CondConv network of timm. {suggest(name, _KNOWN)}")
    try:
        return timm.create_model(name, pretrained=pretrained).eval()
    except Exception as error:  # no network, no weights: every library below raises its own
        raise RuntimeError(
            f"the weights of {name} cannot be had: {type(error).__name__}: {error}. Without a network give a local "
            "file's state dict, from_timm(safetensors.torch.load_file(path)), or pretrained=False for new weights."
        ) from error


def _from_state(state: dict[str, Tensor]) -> nn.Module:
    name = _name_of(state)
    b1 = "_b1_" in name
    size = (240, 240) if b1 else (224, 224)
    half = (0.5, 0.5, 0.5)
    overlay = {"input_size": (3, *size), "crop_pct": 0.882 if b1 else 0.875, "mean": half, "std": half}
    overlay["pool_size"] = (8, 8) if b1 else (7, 7)
    return _build(name, state, tf=True, bn_eps=_TF_EPS, pretrained_cfg_overlay=overlay).eval()


def _name_of(state: Mapping[str, Any]) -> str:
    """timm's name for the network of a state dict in timm's keys, found by K and the number of blocks."""
    routers = [key for key in state if key.endswith("routing_fn.weight")]
    if not routers:
        raise ValueError(
            "this state dict has no 'blocks.*.routing_fn.weight'; expected one of timm's CondConv networks"
        )
    experts = state[routers[0]].shape[0]
    for name, (ours, count) in NAMES.items():
        expected = {f"blocks.{stage}.{place}.routing_fn.weight" for stage, place in _condconv_blocks(ours)}
        if count == experts and expected == set(routers):
            return name
    raise ValueError(
        f"{len(routers)} blocks with {experts} experts ({', '.join(sorted(routers)[:3])} ...) are none of timm's "
        f"CondConv networks: {', '.join(NAMES)}"
    )


def _condconv_blocks(ours: str) -> list[tuple[int, int]]:
    spec = ZOO[ours]
    arguments = spec.architecture.arguments(width=spec.width, depth=spec.depth, se=True)
    groups = list(enumerate(arguments["block_args"]))[spec.begin_group - 1 :]
    return [(stage, place) for stage, blocks in groups for place in range(len(blocks))]


def _sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    classes = state["classifier.weight"].shape[0] if "classifier.weight" in state else 0
    return {"num_classes": classes, "in_chans": state["conv_stem.weight"].shape[1]}


def _build(name: str, state: Mapping[str, Tensor], *, tf: bool, **arguments: Any) -> nn.Module:
    ours, experts = NAMES[name]
    padding: dict[str, Any] = {"pad_type": "same"} if tf else {}
    with torch.device("meta"):  # no initialisation: all values come from the checkpoint
        model = build(ZOO[ours], experts=experts, **_sizes(state), **padding, **arguments)
    model = model.to_empty(device="cpu").to(state["conv_stem.weight"].dtype)
    shapes = {key: tensor.shape for key, tensor in model.state_dict().items()}
    weights = {}
    for key, tensor in state.items():
        own = _our_key(key)
        fits = own in shapes and len(shapes[own]) == 5 and tensor.dim() == 2 and tensor.numel() == shapes[own].numel()
        weights[own] = tensor.reshape(shapes[own]) if fits else tensor
    _load(model, weights, name)
    return model


def _load(model: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    own = model.state_dict()
    problems = [f"{key} is missing" for key in own if key not in weights]
    problems += [f"{key} is unknown. {suggest(key, own, limit=3)}" for key in weights if key not in own]
    problems += [
        f"{key} has shape {tuple(weights[key].shape)}; expected {tuple(own[key].shape)}"
        for key in own
        if key in weights and weights[key].shape != own[key].shape
    ]
    if problems:
        raise ValueError(f"the weights are not those of {name}: {shortened(problems)}")
    model.load_state_dict(weights)


def _our_key(key: str) -> str:
    return key.replace(".routing_fn.", ".router.fc.")


def _their_key(key: str) -> str:
    return key.replace(".router.fc.", ".routing_fn.")


def _is_bank(key: str, tensor: Tensor) -> bool:
    return tensor.dim() == 5 and re.search(r"conv_(pw|dw|pwl)\.weight$", key) is not None


def _drop_path(model: nn.Module) -> float:
    """The rate of the whole network. timm raises it linearly from block to block and stores the rates of the blocks
    only."""
    blocks = [block for stage in model.get_submodule("blocks").children() for block in stage.children()]
    last = getattr(getattr(blocks[-1], "drop_path", None), "drop_prob", 0.0)
    return float(last or 0.0) * len(blocks) / max(1, len(blocks) - 1)
