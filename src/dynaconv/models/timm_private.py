"""The private names of timm that the networks are built with; no other file imports them.

The import paths are those of timm 1.0. If timm moves a name, change this file.
"""

from __future__ import annotations

from timm.models._builder import pretrained_cfg_for_features
from timm.models._efficientnet_blocks import ConvBnAct, DepthwiseSeparableConv, InvertedResidual, SqueezeExcite
from timm.models._efficientnet_builder import (
    decode_arch_def,
    efficientnet_init_weights,
    resolve_bn_args,
    round_channels,
)

__all__ = [
    "ConvBnAct",
    "DepthwiseSeparableConv",
    "InvertedResidual",
    "SqueezeExcite",
    "decode_arch_def",
    "efficientnet_init_weights",
    "pretrained_cfg_for_features",
    "resolve_bn_args",
    "round_channels",
]
