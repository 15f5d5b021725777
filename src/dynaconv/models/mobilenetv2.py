"""MobileNetV2 (Sandler et al. 2018) with CondConv (Yang et al. 2019) and dynamic convolution (Chen et al. 2020)."""

from __future__ import annotations

from dynaconv.models.builder import register
from dynaconv.models.spec import Architecture, NetworkSpec

MOBILENETV2 = Architecture(
    kind="efficientnet",
    act="relu6",
    groups=(
        "ds_r1_k3_s1_c16",
        "ir_r2_k3_s2_e6_c24",
        "ir_r3_k3_s2_e6_c32",
        "ir_r4_k3_s2_e6_c64",
        "ir_r3_k3_s1_e6_c96",
        "ir_r3_k3_s2_e6_c160",
        "ir_r1_k3_s1_e6_c320",
    ),
)


def _condconv(percent: int, row: str, top1: float) -> NetworkSpec:
    """Groups 2 to 7, the last 1x1 convolution and the classifier are dynamic.

    The text ("the final 6 inverted residual blocks and the classifier") gives 323M; the printed 329M needs nearly all
    blocks and the last convolution: six block *groups* (docs/paper-condconv.md).
    """
    return NetworkSpec(
        name=f"condconv_mobilenetv2_{percent:03d}",
        architecture=MOBILENETV2,
        method="condconv",
        row=row,
        experts=8,
        width=percent / 100,
        begin_group=2,
        dynamic_head=True,
        dynamic_classifier=True,
        top1=top1,
    )


def _dynamic(percent: int, drop_rate: float, top1: float) -> NetworkSpec:
    """All convolutions of all blocks are dynamic (Chen et al. 2020, section 5.1)."""
    return NetworkSpec(
        name=f"dy_mobilenetv2_{percent:03d}",
        architecture=MOBILENETV2,
        method="dynamic",
        row=f"Chen 2020, Table 8, DY-MobileNetV2 x{percent / 100:g}",
        experts=4,
        width=percent / 100,
        drop_rate=drop_rate,
        top1=top1,
    )


register(
    _condconv(50, "Chen 2020, Table 2, CondConv x0.5", top1=68.4),
    _condconv(100, "Yang 2019, Table 1, MobileNetV2 (1.0x)", top1=74.6),
    _dynamic(35, drop_rate=0.0, top1=65.9),
    _dynamic(50, drop_rate=0.0, top1=69.9),
    _dynamic(75, drop_rate=0.1, top1=73.7),
    _dynamic(100, drop_rate=0.2, top1=75.2),
)
