"""EfficientNet-B0 (Tan and Le 2019) with CondConv (Yang et al. 2019)."""

from __future__ import annotations

from dynaconv.models.builder import register
from dynaconv.models.spec import Architecture, NetworkSpec

EFFICIENTNET = Architecture(
    kind="efficientnet",
    act="swish",
    groups=(
        "ds_r1_k3_s1_e1_c16_se0.25",
        "ir_r2_k3_s2_e6_c24_se0.25",
        "ir_r2_k5_s2_e6_c40_se0.25",
        "ir_r3_k3_s2_e6_c80_se0.25",
        "ir_r3_k5_s1_e6_c112_se0.25",
        "ir_r4_k5_s2_e6_c192_se0.25",
        "ir_r1_k3_s1_e6_c320_se0.25",
    ),
)


def _condconv(name: str, *, row: str, top1: float, depth: float = 1.0) -> NetworkSpec:
    """Groups 5 to 7 are dynamic."""
    return NetworkSpec(
        name=name,
        architecture=EFFICIENTNET,
        method="condconv",
        row=row,
        experts=8,
        depth=depth,
        begin_group=5,
        se=True,
        drop_rate=0.25,
        drop_path_rate=0.2,
        top1=top1,
    )


register(
    _condconv("condconv_efficientnet_b0", row="Yang 2019, Table 1, EfficientNet-B0", top1=78.3),
    _condconv(
        "condconv_efficientnet_b0_depth",
        row="Yang 2019, appendix A, CondConv-EfficientNet-B0-depth",
        depth=1.1,
        top1=79.5,
    ),
)
