"""SSD300 on MobileNetV1 (Liu et al. 2016), static and with CondConv (Yang et al. 2019, section 4.2).

Anchors, matching, losses and post-processing are torchvision's.
``timm.create_model("ssd300_condconv_mobilenetv1_050", num_classes=4)`` builds one for three kinds of objects.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD, SSDHead, SSDScoringHead

from dynaconv.errors import suggest
from dynaconv.layers import CondConv2d
from dynaconv.models.builder import TWINS, register_entrypoint
from dynaconv.routing import ScopedRouter, SigmoidRouter, check_experts, share_router

SIZE = 300
HEADS = ("paper", "ssd")
# Channels of the extra feature layers at width 1.0; the maps are 5x5, 3x3, 2x2 and 1x1.
_EXTRA = (512, 256, 256, 128)


class ExtraBlock(nn.Module):
    """An extra feature layer: a 1x1 convolution to half the channels, then a 3x3 one with stride 2.

    With ``experts`` both are CondConv layers and share one router, computed from the block's input.
    """

    def __init__(self, in_channels: int, out_channels: int, experts: int = 0) -> None:
        super().__init__()
        convolution: Any = nn.Conv2d
        first: dict[str, Any] = {}
        second: dict[str, Any] = {}
        if experts:
            scope = share_router(self, SigmoidRouter(in_channels, experts), name="extra")
            convolution = partial(CondConv2d, experts=experts)
            first = {"router": ScopedRouter(scope, in_channels, experts)}
            second = {"router": ScopedRouter(scope, out_channels // 2, experts)}
        self.conv1 = convolution(in_channels, out_channels // 2, 1, bias=False, **first)
        self.bn1 = nn.BatchNorm2d(out_channels // 2)
        self.conv2 = convolution(out_channels // 2, out_channels, 3, stride=2, padding=1, bias=False, **second)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.act = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.bn1(self.conv1(x)))
        return self.act(self.bn2(self.conv2(x)))


class SSDBackbone(nn.Module):
    """MobileNetV1 up to separable blocks 11 and 13, then four extra blocks: six maps, 19x19 to 1x1 at 300 pixels."""

    def __init__(self, features: nn.Module, *, width: float, experts: int) -> None:
        super().__init__()
        self.features = features
        channels = list(features.feature_info.channels())  # type: ignore[operator, union-attr]
        self.extra = nn.ModuleList()
        for out_channels in _EXTRA:
            self.extra.append(ExtraBlock(channels[-1], int(out_channels * width), experts))
            channels.append(int(out_channels * width))
        self.out_channels = channels

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        maps = list(self.features(x))
        for block in self.extra:
            maps.append(block(maps[-1]))
        return OrderedDict((str(index), each) for index, each in enumerate(maps))


class PointwiseHead(nn.Module):
    """The paper's predictors: for every map one 1x1 convolution with bias for the boxes and one for the classes."""

    def __init__(self, in_channels: list[int], anchors: list[int], num_classes: int) -> None:
        super().__init__()
        self.classification_head = _predictors(in_channels, anchors, num_classes)
        self.regression_head = _predictors(in_channels, anchors, 4)

    def forward(self, x: list[Tensor]) -> dict[str, Tensor]:
        return {"bbox_regression": self.regression_head(x), "cls_logits": self.classification_head(x)}


def _predictors(in_channels: list[int], anchors: list[int], columns: int) -> SSDScoringHead:
    layers = [nn.Conv2d(channels, count * columns, 1) for channels, count in zip(in_channels, anchors, strict=True)]
    for layer in layers:
        nn.init.normal_(layer.weight, std=0.03)
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # torch types it as optional
    return SSDScoringHead(nn.ModuleList(layers), columns)


class PaperAnchors(DefaultBoxGenerator):
    """Three boxes per place of the first map and six of the others, scales 0.2 to 0.95, as the paper's code has them.

    The first map has a square box of scale 0.1 and boxes of scale 0.2 with the ratios 2 and 1/2. The code is
    TensorFlow's object detection interface (``reduce_boxes_in_lowest_layer``).
    """

    def __init__(self) -> None:
        super().__init__([[2], [2, 3], [2, 3], [2, 3], [2, 3], [2, 3]], min_ratio=0.2, max_ratio=0.95)
        smallest = self._wh_pairs[0]
        self._wh_pairs[0] = torch.cat([torch.full_like(smallest[:1], 0.1), smallest[2:]])

    def num_anchors_per_location(self) -> list[int]:
        return [len(pairs) for pairs in self._wh_pairs]


class SSD300(SSD):
    """torchvision's SSD on a :class:`SSDBackbone`.

    Takes a list of images ``(3, H, W)`` with values from 0 to 1, in training with targets (``boxes`` as x1, y1, x2, y2
    in pixels and ``labels`` from 1), and returns losses in training, else detections; see
    ``torchvision.models.detection.ssd.SSD``.
    """

    def compute_loss(self, targets: Any, head_outputs: dict[str, Tensor], *rest: Any) -> dict[str, Tensor]:
        """torchvision's, in float32 under any autocast."""
        losses: dict[str, Tensor] = super().compute_loss(targets, _in_float32(head_outputs), *rest)
        return losses

    def postprocess_detections(self, head_outputs: dict[str, Tensor], *rest: Any) -> list[dict[str, Tensor]]:
        """torchvision's, in float32 under any autocast."""
        found: list[dict[str, Tensor]] = super().postprocess_detections(_in_float32(head_outputs), *rest)
        return found

    def raw(self) -> nn.Module:
        """Backbone and head alone: a batch ``(B, 3, 300, 300)`` to box offsets and class logits. What is counted."""
        return _Raw(self.backbone, self.head)


def _in_float32(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.float() for name, value in outputs.items()}


class _Raw(nn.Module):
    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self.head(list(self.backbone(x).values()))
        return found


def ssd300(
    width: float,
    *,
    experts: int = 0,
    num_classes: int = 91,
    size: int = SIZE,
    head: str = "paper",
    scales: Sequence[float] | None = None,
    score_thresh: float = 0.01,
    nms_thresh: float = 0.45,
    detections_per_img: int = 200,
    iou_thresh: float = 0.5,
    topk_candidates: int = 400,
    image_mean: list[float] | None = None,
    image_std: list[float] | None = None,
) -> SSD300:
    """Build the detector.

    Args:
        width: multiplier of MobileNetV1's channels: 0.25, 0.5, 0.75 or 1.0.
        experts: K of separable blocks 6 to 13 and of the extra blocks; 0 for the static network. Predictors are static.
        num_classes: with the background, which is class 0. The paper's are COCO's 90 ids and the background.
        size: side of the square that images are scaled to. The anchors keep their share of it.
        head: ``"paper"`` (1x1 predictors, 3 or 6 anchors: the published cost) or ``"ssd"`` (3x3 predictors, 4 or 6
            anchors, as Liu et al. 2016 have them).
        scales: of the anchors of the head ``"ssd"``, as shares of the image's side: seven rising numbers; by default
            0.15 to 1.05. Map k has squares of the sides ``s[k]`` and ``sqrt(s[k] * s[k + 1])``, and boxes of the area
            ``s[k]^2`` that are 2 (on maps 2 to 4 also 3) times as wide as high and as high as wide.
        score_thresh, nms_thresh, detections_per_img, iou_thresh, topk_candidates, image_mean, image_std: as in
            torchvision's ``SSD``.

    Raises:
        ValueError: an impossible value.
    """
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"size is {size!r}; expected a side in pixels")
    if head not in HEADS:
        raise ValueError(f"head is {head!r}. {suggest(str(head), HEADS)}")
    if scales is not None:
        _check_scales(head, scales)
    if not isinstance(num_classes, int) or isinstance(num_classes, bool) or num_classes < 2:
        raise ValueError(f"num_classes is {num_classes!r}; expected at least 2: the background and one class")
    if experts:
        check_experts(experts)
    kind: dict[str, Any] = {"experts": experts} if experts else {"static": True}
    name = f"condconv_mobilenetv1_{round(width * 100):03d}"
    features = timm.create_model(name, features_only=True, out_indices=(3, 4), **kind)
    backbone = SSDBackbone(features, width=width, experts=experts)
    if head == "paper":
        anchors: DefaultBoxGenerator = PaperAnchors()
        predictors: nn.Module = PointwiseHead(backbone.out_channels, anchors.num_anchors_per_location(), num_classes)
    else:
        anchors = DefaultBoxGenerator(
            [[2], [2, 3], [2, 3], [2, 3], [2], [2]], scales=None if scales is None else list(scales)
        )
        predictors = SSDHead(backbone.out_channels, anchors.num_anchors_per_location(), num_classes)
    return SSD300(
        backbone,
        anchors,
        (size, size),
        num_classes,
        head=predictors,
        score_thresh=score_thresh,
        nms_thresh=nms_thresh,
        detections_per_img=detections_per_img,
        iou_thresh=iou_thresh,
        topk_candidates=topk_candidates,
        image_mean=image_mean,
        image_std=image_std,
    )


def _check_scales(head: str, scales: Sequence[float]) -> None:
    if head != "ssd":
        raise ValueError(f"scales are for head='ssd', and head is {head!r}, whose anchors are the paper's")
    rising = all(small < large for small, large in pairwise(scales))
    if len(scales) != len(_EXTRA) + 3 or not rising or scales[0] <= 0:
        raise ValueError(
            f"scales is {scales!r}; expected {len(_EXTRA) + 3} rising numbers above 0: one for each of the "
            f"{len(_EXTRA) + 2} maps, and one for the larger squares of the last map"
        )


# width in percent: published AP on COCO's minival in percent, static and with CondConv
_PUBLISHED = {50: (14.4, 18.0), 75: (18.2, 21.0), 100: (20.3, 22.4)}

for _percent, (_static, _dynamic) in _PUBLISHED.items():
    _row = f"Yang 2019, Table 2, SSD300-MobileNetV1 {_percent / 100:g}x"
    _input = (3, SIZE, SIZE)
    _ap = "published COCO AP {} %"
    register_entrypoint(
        f"ssd300_mobilenetv1_{_percent:03d}", partial(ssd300, _percent / 100), _input, 91, _row, _ap.format(_static)
    )
    register_entrypoint(
        f"ssd300_condconv_mobilenetv1_{_percent:03d}",
        partial(ssd300, _percent / 100, experts=8),
        _input,
        91,
        f"{_row}, CondConv-8",
        _ap.format(_dynamic),
    )
    TWINS[f"ssd300_mobilenetv1_{_percent:03d}"] = "condconv", f"ssd300_condconv_mobilenetv1_{_percent:03d}"
