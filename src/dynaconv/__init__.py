"""Dynamic convolution: layers whose kernels are mixed anew for every example."""

from __future__ import annotations

import importlib
from typing import Any

from dynaconv.conversion import dynamize, load_static
from dynaconv.counting import cost
from dynaconv.inference import freeze
from dynaconv.layers import (
    CondConv1d,
    CondConv2d,
    CondConv3d,
    CondConvTranspose1d,
    CondConvTranspose2d,
    CondConvTranspose3d,
    CondLinear,
    DynamicConv1d,
    DynamicConv2d,
    DynamicConv3d,
    DynamicConvTranspose1d,
    DynamicConvTranspose2d,
    DynamicConvTranspose3d,
    DynamicLinear,
    tune,
)
from dynaconv.ops import Geometry, mix
from dynaconv.routing import (
    Router,
    SigmoidRouter,
    SoftmaxRouter,
    TemperatureSchedule,
    set_temperature,
    share_router,
)

__version__ = "0.1.0"

__all__ = [
    "CondConv1d",
    "CondConv2d",
    "CondConv3d",
    "CondConvTranspose1d",
    "CondConvTranspose2d",
    "CondConvTranspose3d",
    "CondLinear",
    "DynamicConv1d",
    "DynamicConv2d",
    "DynamicConv3d",
    "DynamicConvTranspose1d",
    "DynamicConvTranspose2d",
    "DynamicConvTranspose3d",
    "DynamicLinear",
    "Geometry",
    "Router",
    "SigmoidRouter",
    "SoftmaxRouter",
    "TemperatureSchedule",
    "cost",
    "dynamize",
    "freeze",
    "load_static",
    "mix",
    "set_temperature",
    "share_router",
    "tune",
]

# Names whose rooms need more than torch: imported when they are first used.
_LAZY = {"from_timm": "dynaconv.models", "to_timm": "dynaconv.models"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'dynaconv' has no attribute {name!r}")
