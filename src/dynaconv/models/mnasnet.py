"""MnasNet-A1 (Tan et al. 2019) with CondConv (Yang et al. 2019)."""

from __future__ import annotations

from dynaconv.models.builder import register
from dynaconv.models.spec import Architecture, NetworkSpec

MNASNET_A1 = Architecture(
    kind="efficientnet",
    groups=(
        "ds_r1_k3_s1_e1_c16_noskip",
        "ir_r2_k3_s2_e6_c24",
        "ir_r3_k5_s2_e3_c40_se0.25",
        "ir_r4_k3_s2_e6_c80",
        "ir_r2_k3_s1_e6_c112_se0.25",
        "ir_r3_k5_s2_e6_c160_se0.25",
        "ir_r1_k3_s1_e6_c320",
    ),
)

register(
    NetworkSpec(
        name="condconv_mnasnet_a1",
        architecture=MNASNET_A1,
        method="condconv",
        row="Yang 2019, Table 1, MnasNet-A1",
        experts=8,
        begin_group=5,
        se=True,
        top1=76.2,
    )
)
