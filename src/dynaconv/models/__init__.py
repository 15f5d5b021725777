"""The papers' networks, a file for each family, built on timm's backbones and registered with timm on import; and a
thin ResNet for small pictures.

>>> import timm, dynaconv.models
>>> timm.create_model("dy_mobilenetv2_050", num_classes=10).num_classes
10
"""

from __future__ import annotations

from dynaconv.models import (  # noqa: F401 - each of these files registers its networks
    efficientnet,
    keypoints,
    mnasnet,
    mobilenetv1,
    mobilenetv2,
    mobilenetv3,
    resnet,
    small_resnet,
    ssd,
)
from dynaconv.models.builder import TWINS, ZOO, build, countable
from dynaconv.models.hub import load_pretrained, push_to_hub, save_pretrained
from dynaconv.models.options import CONVOLUTIONS, ROUTINGS, Options
from dynaconv.models.spec import Architecture, NetworkSpec
from dynaconv.models.timm_weights import from_timm, to_timm
from dynaconv.models.weights import load_weights

__all__ = [
    "CONVOLUTIONS",
    "ROUTINGS",
    "TWINS",
    "ZOO",
    "Architecture",
    "NetworkSpec",
    "Options",
    "build",
    "countable",
    "from_timm",
    "load_pretrained",
    "load_weights",
    "push_to_hub",
    "save_pretrained",
    "to_timm",
]
