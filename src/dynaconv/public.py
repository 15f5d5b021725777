"""The public names: each is available as ``dynaconv.<name>`` and is loaded when it is first used."""

from __future__ import annotations

from dynaconv.conversion import dynamize, load_static
from dynaconv.counting import cost
from dynaconv.inference import freeze, load, save
from dynaconv.inspection import intervene, record_routing
from dynaconv.kernels.cpu import keep_freed_memory
from dynaconv.layers import (
    CondConv1d,
    CondConv2d,
    CondConv3d,
    CondConvTranspose1d,
    CondConvTranspose2d,
    CondConvTranspose3d,
    CondLinear,
    CondStdConv2d,
    DynamicConv1d,
    DynamicConv2d,
    DynamicConv3d,
    DynamicConvTranspose1d,
    DynamicConvTranspose2d,
    DynamicConvTranspose3d,
    DynamicLinear,
    DynamicStdConv2d,
    tune,
)
from dynaconv.ops import Geometry, convolve_each, mix
from dynaconv.routing import (
    Router,
    SigmoidRouter,
    SoftmaxRouter,
    TemperatureSchedule,
    set_temperature,
    share_router,
)

__all__ = [
    "CondConv1d",
    "CondConv2d",
    "CondConv3d",
    "CondConvTranspose1d",
    "CondConvTranspose2d",
    "CondConvTranspose3d",
    "CondLinear",
    "CondStdConv2d",
    "DynamicConv1d",
    "DynamicConv2d",
    "DynamicConv3d",
    "DynamicConvTranspose1d",
    "DynamicConvTranspose2d",
    "DynamicConvTranspose3d",
    "DynamicLinear",
    "DynamicStdConv2d",
    "Geometry",
    "Router",
    "SigmoidRouter",
    "SoftmaxRouter",
    "TemperatureSchedule",
    "convolve_each",
    "cost",
    "dynamize",
    "freeze",
    "intervene",
    "keep_freed_memory",
    "load",
    "load_static",
    "mix",
    "record_routing",
    "save",
    "set_temperature",
    "share_router",
    "tune",
]
