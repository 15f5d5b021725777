"""The static networks, declared for timm's builders: block by block, as the papers' baselines have them.

A line is one group of blocks in timm's notation: block type (``ds``/``dsa`` separable, ``ir`` inverted residual, ``cn``
convolution), ``r`` repeats, ``k`` kernel, ``s`` stride, ``e`` expansion, ``c`` channels, ``se`` squeeze-and-excitation.
``ds`` is the inverted residual without an expansion (t = 1).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from timm.layers import get_act_layer
from timm.models._efficientnet_blocks import SqueezeExcite
from timm.models._efficientnet_builder import decode_arch_def, round_channels
from timm.models.resnet import BasicBlock, Bottleneck
from torch import nn


@dataclass(frozen=True, kw_only=True)
class Skeleton:
    """A static network before width and depth are chosen.

    Attributes:
        kind: which of timm's classes builds it.
        groups: the block groups; for ``resnet`` the number of blocks of each group.
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
            layers = tuple(scaled(int(group), depth) for group in self.groups)
            return {"block": self.block, "layers": layers}
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


def scaled(repeats: int, depth: float) -> int:
    """How many blocks a group of ``repeats`` has under a depth multiplier, as timm's builder does it."""
    import math

    return math.ceil(repeats * depth) if _rounding(depth) == "ceil" else max(1, round(repeats * depth))


def _rounding(depth: float) -> str:
    """Up for deeper networks, as EfficientNet has it; to the nearest for shallower ones, which no paper tells."""
    return "ceil" if depth >= 1 else "round"


MOBILENET_V1 = Skeleton(
    kind="efficientnet",
    act="relu6",
    head=0,
    groups=("dsa_r1_k3_s1_c64", "dsa_r2_k3_s2_c128", "dsa_r2_k3_s2_c256", "dsa_r6_k3_s2_c512", "dsa_r2_k3_s2_c1024"),
)

MOBILENET_V2 = Skeleton(
    kind="efficientnet",
    act="relu6",
    groups=(
        "ds_r1_k3_s1_c16",
        "ir_r2_k3_s2_e6_c24",
        "ir_r3_k3_s2_e6_c32",
        "ir_r4_k3_s2_e6_c64",
        "ir_r3_k3_s1_e6_c96",
        "ir_r3_k3_s2_e6_c160",
        "ir_r1_k3_s1_e6_c320",
    ),
)

MNASNET_A1 = Skeleton(
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

EFFICIENTNET = Skeleton(
    kind="efficientnet",
    act="swish",
    groups=(
        "ds_r1_k3_s1_e1_c16_se0.25",
        "ir_r2_k3_s2_e6_c24_se0.25",
        "ir_r2_k5_s2_e6_c40_se0.25",
        "ir_r3_k3_s2_e6_c80_se0.25",
        "ir_r3_k5_s1_e6_c112_se0.25",
        "ir_r4_k5_s2_e6_c192_se0.25",
        "ir_r1_k3_s1_e6_c320_se0.25",
    ),
)

# The first arXiv version (Howard et al. 2019, v1), on which Chen et al. build: its table has stride 1 in the fourth
# block and 2 in the fifth, squeeze-and-excitation after the last 1x1 convolution, and 1280 features.
MOBILENET_V3_SMALL = Skeleton(
    kind="mobilenetv3",
    act="hard_swish",
    stem=16,
    groups=(
        "ds_r1_k3_s2_e1_c16_se0.25_nre",
        "ir_r1_k3_s2_e4.5_c24_nre ir_r1_k3_s1_e3.67_c24_nre",
        "ir_r1_k5_s1_e4_c40_se0.25",
        "ir_r2_k5_s2_e6_c40_se0.25",
        "ir_r2_k5_s1_e3_c48_se0.25",
        "ir_r3_k5_s2_e6_c96_se0.25",
        "cn_r1_k1_s1_c576",
    ),
)

RESNET_10 = Skeleton(kind="resnet", block=BasicBlock, groups=(1, 1, 1, 1))
RESNET_18 = Skeleton(kind="resnet", block=BasicBlock, groups=(2, 2, 2, 2))
RESNET_50 = Skeleton(kind="resnet", block=Bottleneck, groups=(3, 4, 6, 3))
