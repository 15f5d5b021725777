"""The papers' networks: declarations, one for each name."""

from __future__ import annotations

from typing import Any

from dynaconv.models.declaration import Declaration
from dynaconv.models.skeletons import (
    EFFICIENTNET,
    MNASNET_A1,
    MOBILENET_V1,
    MOBILENET_V2,
    MOBILENET_V3_SMALL,
    RESNET_10,
    RESNET_18,
    RESNET_50,
)


def _condconv_v1(percent: int, row: str, **more: Any) -> Declaration:
    """Separable blocks 6 to 13 and the classifier (Yang et al. 2019, appendix A)."""
    return Declaration(
        name=f"condconv_mobilenetv1_{percent:03d}",
        skeleton=MOBILENET_V1,
        method="condconv",
        row=row,
        experts=8,
        width=percent / 100,
        begin_group=4,
        dynamic_classifier=True,
        **more,
    )


def _condconv_v2(percent: int, row: str, **more: Any) -> Declaration:
    """Groups 2 to 7, the last 1x1 convolution and the classifier.

    The text ("the final 6 inverted residual blocks and the classifier") gives 323M; the printed 329M needs nearly all
    blocks and the last convolution: six block *groups* (docs/paper-condconv.md).
    """
    return Declaration(
        name=f"condconv_mobilenetv2_{percent:03d}",
        skeleton=MOBILENET_V2,
        method="condconv",
        row=row,
        experts=8,
        width=percent / 100,
        begin_group=2,
        dynamic_head=True,
        dynamic_classifier=True,
        **more,
    )


def _dy_v2(percent: int, drop_rate: float, top1: float) -> Declaration:
    """All convolutions of all blocks (Chen et al. 2020, section 5.1)."""
    return Declaration(
        name=f"dy_mobilenetv2_{percent:03d}",
        skeleton=MOBILENET_V2,
        method="dynamic",
        row=f"Chen 2020, Table 8, DY-MobileNetV2 x{percent / 100:g}",
        experts=4,
        width=percent / 100,
        drop_rate=drop_rate,
        top1=top1,
    )


_DECLARATIONS = (
    _condconv_v1(25, "Yang 2019, Figure 2", remark="with 32 experts 62.0 (Table 3)"),
    _condconv_v1(50, "Yang 2019, Figure 2", remark="with 32 experts 71.6 (appendix A)"),
    _condconv_v1(75, "Yang 2019, Figure 2"),
    _condconv_v1(100, "Yang 2019, Table 1, MobileNetV1 (1.0x)", top1=73.7),
    _condconv_v2(50, "Chen 2020, Table 2, CondConv x0.5", top1=68.4),
    _condconv_v2(100, "Yang 2019, Table 1, MobileNetV2 (1.0x)", top1=74.6),
    Declaration(
        name="condconv_mnasnet_a1",
        skeleton=MNASNET_A1,
        method="condconv",
        row="Yang 2019, Table 1, MnasNet-A1",
        experts=8,
        begin_group=5,
        se=True,
        top1=76.2,
    ),
    Declaration(
        name="condconv_resnet50",
        skeleton=RESNET_50,
        method="condconv",
        row="Yang 2019, Table 1, ResNet-50",
        experts=8,
        begin_group=4,
        dynamic_classifier=True,
        top1=78.6,
    ),
    Declaration(
        name="condconv_efficientnet_b0",
        skeleton=EFFICIENTNET,
        method="condconv",
        row="Yang 2019, Table 1, EfficientNet-B0",
        experts=8,
        begin_group=5,
        se=True,
        drop_rate=0.25,
        drop_path_rate=0.2,
        top1=78.3,
    ),
    Declaration(
        name="condconv_efficientnet_b0_depth",
        skeleton=EFFICIENTNET,
        method="condconv",
        row="Yang 2019, appendix A, CondConv-EfficientNet-B0-depth",
        experts=8,
        depth=1.1,
        begin_group=5,
        se=True,
        drop_rate=0.25,
        drop_path_rate=0.2,
        top1=79.5,
    ),
    _dy_v2(35, 0.0, 65.9),
    _dy_v2(50, 0.0, 69.9),
    _dy_v2(75, 0.1, 73.7),
    _dy_v2(100, 0.2, 75.2),
    Declaration(
        name="dy_mobilenetv3_small",
        skeleton=MOBILENET_V3_SMALL,
        method="dynamic",
        row="Chen 2020, Table 8, DY-MobileNetV3-Small",
        experts=4,
        se=True,
        drop_rate=0.2,
        top1=70.3,
    ),
    Declaration(
        name="dy_mobilenetv3_small_nose",
        skeleton=MOBILENET_V3_SMALL,
        method="dynamic",
        row="Chen 2020, Table 7, DY-MobileNetV3-Small w/o SE",
        experts=4,
        se=False,
        drop_rate=0.2,
        top1=69.6,
    ),
    Declaration(
        name="dy_resnet10",
        skeleton=RESNET_10,
        method="dynamic",
        row="Chen 2020, Table 8, DY-ResNet-10",
        experts=4,
        top1=67.7,
    ),
    Declaration(
        name="dy_resnet18",
        skeleton=RESNET_18,
        method="dynamic",
        row="Chen 2020, Table 8, DY-ResNet-18",
        experts=4,
        drop_rate=0.1,
        top1=72.7,
    ),
)

ZOO: dict[str, Declaration] = {declaration.name: declaration for declaration in _DECLARATIONS}
