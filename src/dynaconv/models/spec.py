"""The description of a network of a paper: its architecture, and which of its layers are dynamic."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from timm.layers import get_act_layer
from torch import nn

from dynaconv.models.timm_private import SqueezeExcite, decode_arch_def, round_channels

_RESNET = (64, 128, 256, 512)  # channels of timm's ResNets


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A static network before width and depth are chosen, for timm's builders.

    Attributes:
        kind: which of timm's classes builds it.
        groups: the block groups, one line each in timm's notation: block type (``ds``/``dsa`` separable, ``ir``
            inverted residual, ``cn`` convolution), ``r`` repeats, ``k`` kernel, ``s`` stride, ``e`` expansion, ``c``
            channels, ``se`` squeeze-and-excitation. ``ds`` is the inverted residual without an expansion (t = 1). For
            ``resnet`` the number of blocks of each group.
        act: timm's name of the activation.
        stem: channels of the first convolution.
        head: channels of the 1x1 convolution after the blocks (before the pooling for ``efficientnet``, after it for
            ``mobilenetv3``); 0 for none.
        block: residual block, for ``resnet``.
    """

    kind: Literal["efficientnet", "mobilenetv3", "resnet"]
    groups: tuple[str, ...] | tuple[int, ...]
    act: str = "relu"
    stem: int = 32
    head: int = 1280
    block: type[nn.Module] | None = None

    @property
    def has_se(self) -> bool:
        return any("_se" in str(group) for group in self.groups)

    def arguments(self, *, width: float, depth: float, se: bool) -> dict[str, Any]:
        """The arguments of timm's class for this width, depth and choice about squeeze-and-excitation."""
        if self.kind == "resnet":
            scaled = {} if width == 1 else {"channels": tuple(max(1, round(width * channels)) for channels in _RESNET)}
            return {
                "block": self.block,
                "layers": tuple(_repeats(int(group), depth) for group in self.groups),
                **scaled,
            }
        common = {
            "block_args": self._blocks(depth, se),
            "stem_size": self.stem,
            "round_chs_fn": partial(round_channels, multiplier=width),
            "act_layer": get_act_layer(self.act),
        }
        if self.kind == "mobilenetv3":
            gate = partial(
                SqueezeExcite, gate_layer="hard_sigmoid", force_act_layer=nn.ReLU, rd_round_fn=round_channels
            )
            return {**common, "num_features": self.head, "se_layer": gate, "last_se": se}
        # The head is widened, never narrowed (Sandler et al. 2018).
        return {**common, "num_features": self.head and max(self.head, round_channels(self.head, width))}

    def _blocks(self, depth: float, se: bool) -> list[list[dict[str, Any]]]:
        groups = [str(group) if se else re.sub(r"_se[0-9.]+", "", str(group)) for group in self.groups]
        return decode_arch_def(
            [group.split() for group in groups],
            depth_multiplier=depth,
            depth_trunc=_rounding(depth),
            fix_first_last=False,
        )


def _repeats(repeats: int, depth: float) -> int:
    """How many blocks a group of ``repeats`` has under a depth multiplier, as timm's builder does it."""
    return math.ceil(repeats * depth) if _rounding(depth) == "ceil" else max(1, round(repeats * depth))


def _rounding(depth: float) -> str:
    """Rounded up for deeper networks, as in EfficientNet; to the nearest for shallower ones, which no paper defines."""
    return "ceil" if depth >= 1 else "round"


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """One network of a paper.

    Attributes:
        name: its name in timm's registry.
        architecture: its static network.
        method: ``"condconv"`` (Yang et al. 2019) or ``"dynamic"`` (Chen et al. 2020).
        row: where the paper describes it.
        experts: K.
        width, depth: multipliers of the architecture.
        begin_group: the block group with which the dynamic layers begin, from 1.
        dynamic_head: whether the last 1x1 convolution is dynamic.
        dynamic_classifier: whether the classifier is.
        se: squeeze-and-excitation; None where the architecture has none.
        drop_rate, drop_path_rate: dropout before the classifier, and stochastic depth.
        top1: published top-1 accuracy in percent on ImageNet, of just this network; None where there is none.
        remark: what else should be known about the figures.
    """

    name: str
    architecture: Architecture
    method: Literal["condconv", "dynamic"]
    row: str
    experts: int
    width: float = 1.0
    depth: float = 1.0
    begin_group: int = 1
    dynamic_head: bool = False
    dynamic_classifier: bool = False
    se: bool | None = None
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    top1: float | None = None
    remark: str = ""
