"""What a paper's network is, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dynaconv.models.skeletons import Skeleton


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """One network of a paper.

    Attributes:
        name: under which timm knows it.
        skeleton: its static network.
        method: ``"condconv"`` (Yang et al. 2019) or ``"dynamic"`` (Chen et al. 2020).
        row: where the paper describes it.
        experts: K.
        width, depth: multipliers of the skeleton.
        begin_group: the block group with which the dynamic layers begin, from 1.
        dynamic_head: whether the last 1x1 convolution is dynamic.
        dynamic_classifier: whether the classifier is.
        se: squeeze-and-excitation; None where the skeleton has none.
        drop_rate, drop_path_rate: dropout before the classifier, and stochastic depth.
        top1: published top-1 accuracy in percent on ImageNet, of just this network; None where there is none.
        remark: what else should be known about the figures.
    """

    name: str
    skeleton: Skeleton
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
