"""MobileNetV3-Small (Howard et al. 2019) with dynamic convolution (Chen et al. 2020)."""

from __future__ import annotations

from dynaconv.models.builder import register
from dynaconv.models.spec import Architecture, NetworkSpec

# The first arXiv version (Howard et al. 2019, v1), on which Chen et al. build: its table has stride 1 in the fourth
# block and 2 in the fifth, squeeze-and-excitation after the last 1x1 convolution, and 1280 features.
MOBILENETV3_SMALL = Architecture(
    kind="mobilenetv3",
    act="hard_swish",
    stem=16,
    groups=(
        "ds_r1_k3_s2_e1_c16_se0.25_nre",
        "ir_r1_k3_s2_e4.5_c24_nre ir_r1_k3_s1_e3.67_c24_nre",
        "ir_r1_k5_s1_e4_c40_se0.25",
        "ir_r2_k5_s2_e6_c40_se0.25",
        "ir_r2_k5_s1_e3_c48_se0.25",
        "ir_r3_k5_s2_e6_c96_se0.25",
        "cn_r1_k1_s1_c576",
    ),
)


def _dynamic(name: str, *, row: str, se: bool, top1: float) -> NetworkSpec:
    """All convolutions of all blocks are dynamic (Chen et al. 2020, section 5.1)."""
    return NetworkSpec(
        name=name,
        architecture=MOBILENETV3_SMALL,
        method="dynamic",
        row=row,
        experts=4,
        se=se,
        drop_rate=0.2,
        top1=top1,
    )


register(
    _dynamic("dy_mobilenetv3_small", row="Chen 2020, Table 8, DY-MobileNetV3-Small", se=True, top1=70.3),
    _dynamic("dy_mobilenetv3_small_nose", row="Chen 2020, Table 7, DY-MobileNetV3-Small w/o SE", se=False, top1=69.6),
)
