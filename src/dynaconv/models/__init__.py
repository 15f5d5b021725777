"""The papers' networks, declared on timm's backbones and registered with timm when this package is imported.

>>> import timm, dynaconv.models
>>> timm.create_model("dy_mobilenetv2_050", num_classes=10).num_classes
10
"""

from __future__ import annotations

from dynaconv.models.declaration import Declaration
from dynaconv.models.from_timm import from_timm, to_timm
from dynaconv.models.hub import load_pretrained, push_to_hub, save_pretrained
from dynaconv.models.options import CONVOLUTIONS, ROUTINGS, Options
from dynaconv.models.registry import build
from dynaconv.models.weights import load_weights
from dynaconv.models.zoo import ZOO

__all__ = [
    "CONVOLUTIONS",
    "ROUTINGS",
    "ZOO",
    "Declaration",
    "Options",
    "build",
    "from_timm",
    "load_pretrained",
    "load_weights",
    "push_to_hub",
    "save_pretrained",
    "to_timm",
]
