"""Which layers of a network become dynamic, and which of them share routing weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from timm.models import ResNet
from torch import nn

from dynaconv.models.options import Design
from dynaconv.models.timm_private import ConvBnAct, DepthwiseSeparableConv, InvertedResidual


@dataclass(frozen=True, kw_only=True)
class NumberedLayer:
    """One layer as Yang et al. 2019, Table 4, number them: the stem, a block, the last 1x1 convolution, the classifier.

    Attributes:
        role: ``"stem"``, ``"block"``, ``"head"`` or ``"classifier"``.
        name: of its module.
        group: of a block, from 1; else 0.
        modules: the names of its convolutions by their place in the block (C1, C2, C3); a single layer has the place
            "". Empty where the network was built without it (as a feature extractor).
    """

    role: str
    name: str
    group: int
    modules: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class RoutingScope:
    """Dynamic layers that share routing weights: those of a block, computed from its input, or one layer by itself."""

    name: str
    block: str | None
    layers: tuple[str, ...]


def number_layers(model: nn.Module) -> list[NumberedLayer]:
    """Every layer of a network of this package as Yang et al. number them: the first is layer 1."""
    return list(_resnet_layers(model) if isinstance(model, ResNet) else _mobile_layers(model))


def choose_scopes(model: nn.Module, design: Design) -> list[RoutingScope]:
    """The scopes of the layers that become dynamic, in the order in which they run.

    Raises:
        ValueError: ``begin`` is no layer of this network, or nothing would be dynamic.
    """
    numbered = number_layers(model)
    begin = _begin(numbered, design)
    places = {place for layer in numbered for place in layer.modules if place}
    unknown = [place for place in design.convs if place not in places]
    if unknown and not set(design.convs) & places:
        raise ValueError(f"convs is {design.convs}; the blocks of this network have {', '.join(sorted(places))}")
    wanted = {"stem": True, "block": True, "head": design.dynamic_head, "classifier": design.dynamic_classifier}
    chosen = [layer for layer in numbered[begin - 1 :] if wanted[layer.role]]
    if not chosen:
        raise ValueError(
            f"nothing is dynamic: begin={begin} of {len(numbered)} layers, dynamic_head={design.dynamic_head}, "
            f"dynamic_classifier={design.dynamic_classifier}; for the static network say static=True"
        )
    return [scope for layer in chosen for scope in _scopes(layer, design)]


def _begin(numbered: list[NumberedLayer], design: Design) -> int:
    if design.begin is None:
        return next(index for index, layer in enumerate(numbered, 1) if layer.group == design.begin_group)
    if not 1 <= design.begin <= len(numbered):
        raise ValueError(
            f"begin is {design.begin}; expected 1 (the stem) to {len(numbered)} ({numbered[-1].name}): "
            f"layer 2 is the first block, {sum(layer.role == 'block' for layer in numbered) + 1} the last one"
        )
    return design.begin


def _scopes(layer: NumberedLayer, design: Design) -> Iterator[RoutingScope]:
    if layer.role != "block":
        for name in layer.modules.values():
            yield RoutingScope(name=name, block=None, layers=(name,))
        return
    layers = tuple(name for place, name in layer.modules.items() if place in design.convs)
    if design.method == "dynamic":
        for name in layers:
            yield RoutingScope(name=name, block=None, layers=(name,))
    elif layers:
        yield RoutingScope(name=layer.name, block=layer.name, layers=layers)


def _mobile_layers(model: nn.Module) -> Iterator[NumberedLayer]:
    """EfficientNet and MobileNetV3 of timm, and their feature extractors."""
    yield _single(model, "stem", "conv_stem")
    head = None
    for group, stage in enumerate(model.get_submodule("blocks").children(), 1):
        for place, block in stage.named_children():
            name = f"blocks.{group - 1}.{place}"
            if isinstance(block, ConvBnAct):  # the last 1x1 convolution of MobileNetV3
                head = _single(model, "head", f"{name}.conv")
            elif isinstance(block, (InvertedResidual, DepthwiseSeparableConv)):
                yield NumberedLayer(role="block", name=name, group=group, modules=_convolutions(block, name))
    if head is not None:
        yield head
    elif not isinstance(getattr(model, "conv_head", None), nn.Identity):
        yield _single(model, "head", "conv_head")
    yield _single(model, "classifier", "classifier")


def _convolutions(block: nn.Module, name: str) -> dict[str, str]:
    if isinstance(block, InvertedResidual):
        return {"C1": f"{name}.conv_pw", "C2": f"{name}.conv_dw", "C3": f"{name}.conv_pwl"}
    return {"C2": f"{name}.conv_dw", "C3": f"{name}.conv_pw"}


def _resnet_layers(model: nn.Module) -> Iterator[NumberedLayer]:
    """The 1x1 convolutions of the shortcuts do not count as layers and stay static."""
    yield _single(model, "stem", "conv1")
    for group in range(1, 5):
        for place, block in model.get_submodule(f"layer{group}").named_children():
            name = f"layer{group}.{place}"
            layers = {f"C{i}": f"{name}.conv{i}" for i in (1, 2, 3) if hasattr(block, f"conv{i}")}
            yield NumberedLayer(role="block", name=name, group=group, modules=layers)
    yield _single(model, "classifier", "fc")


def _single(model: nn.Module, role: str, name: str) -> NumberedLayer:
    module = model
    for part in name.split("."):
        module = getattr(module, part, nn.Identity())
    there = not isinstance(module, nn.Identity)
    return NumberedLayer(role=role, name=name, group=0, modules={"": name} if there else {})
