"""ResNets (He et al. 2016) with CondConv (Yang et al. 2019) and with dynamic convolution (Chen et al. 2020)."""

from __future__ import annotations

from timm.models.resnet import BasicBlock, Bottleneck

from dynaconv.models.builder import register
from dynaconv.models.spec import Architecture, NetworkSpec

RESNET10 = Architecture(kind="resnet", block=BasicBlock, groups=(1, 1, 1, 1))
RESNET18 = Architecture(kind="resnet", block=BasicBlock, groups=(2, 2, 2, 2))
RESNET50 = Architecture(kind="resnet", block=Bottleneck, groups=(3, 4, 6, 3))

register(
    NetworkSpec(
        name="condconv_resnet50",
        architecture=RESNET50,
        method="condconv",
        row="Yang 2019, Table 1, ResNet-50",
        experts=8,
        begin_group=4,
        dynamic_classifier=True,
        top1=78.6,
    ),
    NetworkSpec(
        name="dy_resnet10",
        architecture=RESNET10,
        method="dynamic",
        row="Chen 2020, Table 8, DY-ResNet-10",
        experts=4,
        top1=67.7,
    ),
    NetworkSpec(
        name="dy_resnet18",
        architecture=RESNET18,
        method="dynamic",
        row="Chen 2020, Table 8, DY-ResNet-18",
        experts=4,
        drop_rate=0.1,
        top1=72.7,
    ),
)
