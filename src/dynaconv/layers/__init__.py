"""Dynamic layers: the arguments of their torch twins, and experts, router, strategy."""

from dynaconv.layers.base import DynamicLayer
from dynaconv.layers.conv import CondConv1d, CondConv2d, CondConv3d, DynamicConv1d, DynamicConv2d, DynamicConv3d
from dynaconv.layers.conv_transpose import (
    CondConvTranspose1d,
    CondConvTranspose2d,
    CondConvTranspose3d,
    DynamicConvTranspose1d,
    DynamicConvTranspose2d,
    DynamicConvTranspose3d,
)
from dynaconv.layers.linear import CondLinear, DynamicLinear
from dynaconv.layers.standardised import CondStdConv2d, DynamicStdConv2d
from dynaconv.layers.tuning import Tuned, tune

__all__ = [
    "DynamicConv1d",
    "DynamicConv2d",
    "DynamicConv3d",
    "DynamicConvTranspose1d",
    "DynamicConvTranspose2d",
    "DynamicConvTranspose3d",
    "DynamicLinear",
    "DynamicStdConv2d",
    "CondConv1d",
    "CondConv2d",
    "CondConv3d",
    "CondConvTranspose1d",
    "CondConvTranspose2d",
    "CondConvTranspose3d",
    "CondLinear",
    "CondStdConv2d",
    "DynamicLayer",
    "tune",
    "Tuned",
]
