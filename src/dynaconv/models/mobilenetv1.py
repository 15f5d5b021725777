"""MobileNetV1 (Howard et al. 2017) with CondConv (Yang et al. 2019)."""

from __future__ import annotations

from typing import Any

from dynaconv.models.builder import register
from dynaconv.models.spec import Architecture, NetworkSpec

MOBILENETV1 = Architecture(
    kind="efficientnet",
    act="relu6",
    head=0,
    groups=("dsa_r1_k3_s1_c64", "dsa_r2_k3_s2_c128", "dsa_r2_k3_s2_c256", "dsa_r6_k3_s2_c512", "dsa_r2_k3_s2_c1024"),
)


def _condconv(percent: int, row: str, **more: Any) -> NetworkSpec:
    """Separable blocks 6 to 13 and the classifier are dynamic (Yang et al. 2019, appendix A)."""
    return NetworkSpec(
        name=f"condconv_mobilenetv1_{percent:03d}",
        architecture=MOBILENETV1,
        method="condconv",
        row=row,
        experts=8,
        width=percent / 100,
        begin_group=4,
        dynamic_classifier=True,
        **more,
    )


register(
    _condconv(25, "Yang 2019, Figure 2", remark="with 32 experts 62.0 (Table 3)"),
    _condconv(50, "Yang 2019, Figure 2", remark="with 32 experts 71.6 (appendix A)"),
    _condconv(75, "Yang 2019, Figure 2"),
    _condconv(100, "Yang 2019, Table 1, MobileNetV1 (1.0x)", top1=73.7),
)
