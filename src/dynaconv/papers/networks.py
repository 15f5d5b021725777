"""The network of a row of a published table, and its cost."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import timm
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from dynaconv.counting import CostReport, cost
from dynaconv.models import ZOO
from dynaconv.models.keypoints import Backbone
from dynaconv.models.ssd import SSD300

_B0, _B0_DEPTH = "condconv_efficientnet_b0", "condconv_efficientnet_b0_depth"
_V1, _V2, _V3 = "condconv_mobilenetv1_025", "condconv_mobilenetv2_100", "dy_mobilenetv3_small"


@dataclass(frozen=True)
class TableNetwork:
    """A network of a table, as it can be built and counted.

    Attributes:
        name: for ``timm.create_model``.
        arguments: as sorted pairs.
        input_size: of one image.
        part: ``"backbone"``: without the classifier, and without MobileNetV3's layer between pooling and classifier.
            ``"head"``: of a keypoint network, its head alone; ``input_size`` is then the backbone's output.
    """

    name: str
    arguments: tuple[tuple[str, object], ...] = ()
    input_size: tuple[int, int, int] = (3, 224, 224)
    part: Literal["", "backbone", "head"] = ""


def network(name: str, size: int = 224, **arguments: Any) -> TableNetwork:
    """A network described by its differences from the registered one, so that equal networks are equal objects."""
    if name in ZOO and arguments.get("experts") == ZOO[name].experts:
        del arguments["experts"]
    return TableNetwork(name, tuple(sorted(arguments.items())), (3, size, size))


def static(name: str, size: int = 224) -> TableNetwork:
    return network(name, size, static=True)


def _ablation(**arguments: Any) -> TableNetwork:
    """Tables 3 and 4 of Yang et al. 2019: MobileNetV1 0.25x with 32 experts."""
    return network(_V1, experts=32, **arguments)


_CONDCONV: dict[tuple[str, str], TableNetwork] = {
    **{
        ("Table 1", f"{row} {kind}"): made
        for row, name in (
            ("MobileNetV1 (1.0x)", "condconv_mobilenetv1_100"),
            ("MobileNetV2 (1.0x)", _V2),
            ("MnasNet-A1", "condconv_mnasnet_a1"),
            ("ResNet-50", "condconv_resnet50"),
            ("EfficientNet-B0", _B0),
        )
        for kind, made in (("baseline", static(name)), ("CondConv-8", network(name)))
    },
    **{
        ("Table 2", f"SSD300-MobileNetV1 {width}x {kind}"): network(f"{name}_{round(float(width) * 100):03d}", 300)
        for width in ("0.5", "0.75", "1.0")
        for kind, name in (("baseline", "ssd300_mobilenetv1"), ("CondConv-8", "ssd300_condconv_mobilenetv1"))
    },
    ("Table 3", "CC-MobileNetV1 (0.25x)"): _ablation(),
    ("Table 3", "Single"): _ablation(routing="single"),
    ("Table 3", "Partially-shared"): _ablation(routing="partially_shared"),
    ("Table 3", "Hidden (small)"): _ablation(routing="hidden_small"),
    ("Table 3", "Hidden (medium)"): _ablation(routing="hidden_medium"),
    ("Table 3", "Hidden (large)"): _ablation(routing="hidden_large"),
    ("Table 3", "Hierarchical"): _ablation(routing="hierarchical"),
    ("Table 3", "Softmax"): _ablation(routing="softmax"),
    ("Table 4", "MobileNetV1 (0.25x) static"): static(_V1),
    ("Table 4", "begin layer 15 (FC only)"): _ablation(begin=15),
    ("Table 4", "begin layer 7 (No FC)"): _ablation(dynamic_classifier=False),
    ("Table 4", "begin layer 7"): _ablation(),
    **{("Table 4", f"begin layer {begin}"): _ablation(begin=begin) for begin in (1, 5, 13)},
    ("App. A", "CondConv-MobileNetV1 0.5x, 32 experts"): network("condconv_mobilenetv1_050", experts=32),
    ("App. A", "MobileNetV1 1.0x"): static("condconv_mobilenetv1_100"),
    ("App. A", "MobileNetV2 1.4x"): network("mobilenetv2_140"),
    ("App. A", "CondConv-MobileNetV2 1.0x"): network(_V2),
    ("App. A", "CondConv-MnasNet-A1"): network("condconv_mnasnet_a1"),
    ("App. A", "ResNet-50"): static("condconv_resnet50"),
    ("App. A", "CondConv-EfficientNet-B0-depth"): network(_B0_DEPTH),
    ("App. A", "EfficientNet-B1"): static(_B0_DEPTH, 240),
    ("official README", "EfficientNet-B0"): static(_B0),
    ("official README", "CondConv-B0 4e"): network(_B0, experts=4),
    ("official README", "CondConv-B0 8e"): network(_B0),
    ("official README", "CondConv-B0-depth 8e"): network(_B0_DEPTH),
}

_DY_BY_NAME = {
    "MobileNetV3-Small": _V3,
    "ResNet-18": "dy_resnet18",
    "ResNet-10": "dy_resnet10",
    **{f"MobileNetV2 x{width}": f"dy_mobilenetv2_{round(float(width) * 100):03d}" for width in (1.0, 0.75, 0.5, 0.35)},
}
_DY_ROW = re.compile(r"(?P<backbone>backbone )?(?P<dynamic>DY-)?(?P<name>\S+( x[\d.]+)?)(?P<kind> static| K=\d)?")
_DY_HEAD = re.compile(
    r"type (?P<type>[AB]) (?P<dynamic>DY )?(dconv|bneck) head (on )?(?P<name>\S+) .*\((Cin|Bout)=(?P<channels>\d+)\)"
)
_DY_TABLE_2 = re.compile(r"(?P<method>CondConv|DY) x(?P<width>[\d.]+) K=(?P<experts>\d)")


def network_of_row(paper: str, table: str, row: str) -> TableNetwork | None:
    """The network of a row; None if this package does not have it yet."""
    if paper == "CondConv":
        return _CONDCONV.get((table, row))
    if table == "Table 2":
        return _of_table_2(row)
    if head := _DY_HEAD.fullmatch(row):
        return _of_head(head)
    match = _DY_ROW.fullmatch(row)
    if match is None or match["name"] not in _DY_BY_NAME:
        return None
    name = _DY_BY_NAME[match["name"]]
    if match["kind"] and "K=" in match["kind"]:
        return network(name, experts=int(match["kind"][-1]))
    arguments: tuple[tuple[str, object], ...] = () if match["dynamic"] else (("static", True),)
    if match["backbone"]:
        return TableNetwork(name, arguments, (3, 256, 192), part="backbone")
    return TableNetwork(name, arguments)


def _of_head(match: re.Match[str]) -> TableNetwork:
    backbone = {"MobileNetV2": "mobilenetv2_100", "MobileNetV3-Small": "mobilenetv3_small", "ResNet-18": "resnet18"}
    name = f"keypoints_{match['type'].lower()}_{'dy_' if match['dynamic'] else ''}{backbone[match['name']]}"
    return TableNetwork(name, (), (int(match["channels"]), 8, 6), part="head")


def _of_table_2(row: str) -> TableNetwork | None:
    match = _DY_TABLE_2.fullmatch(row)
    if match is None:
        return None
    family = "condconv" if match["method"] == "CondConv" else "dy"
    return network(f"{family}_mobilenetv2_{round(float(match['width']) * 100):03d}", experts=int(match["experts"]))


def count(network: TableNetwork) -> CostReport:
    """The cost of a network in plain MAdds (``report.under(rule)`` for other rules); it is built without values."""
    with torch.device("meta"), _WithoutDrawing():
        model: nn.Module = timm.create_model(network.name, **dict(network.arguments))  # type: ignore[arg-type]
        counted: nn.Module = model
        if isinstance(model, SSD300):
            counted = model.raw()
        elif network.part == "head":
            counted = model.get_submodule("head")
        elif network.part == "backbone":
            counted = Backbone(model)
    return cost(counted, network.input_size)


class _WithoutDrawing(TorchFunctionMode):
    """Skips the initialisation of weights, which takes half of the time of building on the meta device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in ("normal_", "uniform_", "fill_", "zero_", "clamp_", "erfinv_"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))
