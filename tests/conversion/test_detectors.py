"""Detectors: a twin computes the same boxes; in which order they are chosen, rounding decides.

torchvision's untrained Faster R-CNN (ResNet-50, 800 pixels) and its twin at noise 0 may return scores that differ by
0.1 at the same place. The cause is not in the twin: its raw outputs are equal up to rounding (1.3e-5 of 8 for the
objectness). But neighbours among the 191,835 sorted scores are 1.2e-5 apart, and top-k and non-maximum suppression go
by that order. The static network with its convolutions computed in float64 differs from itself in the same way: 79 of
100 boxes stand at another place, one is another box. So what is compared here is what comes before the choice, the
second stage for given proposals, and the boxes as a set.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

import dynaconv
from dynaconv.layers import DynamicLayer

SIZE = 128


def detector() -> FasterRCNN:
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None)
    return FasterRCNN(backbone, num_classes=5, min_size=SIZE, max_size=SIZE, box_score_thresh=0.0).eval()


def raw(network: FasterRCNN, images: Tensor, proposals: list[Tensor]) -> list[Tensor]:
    """Features, objectness, box offsets; and scores and boxes of the second stage for the proposals given."""
    features = network.backbone(images)
    objectness, offsets = network.rpn.head(list(features.values()))
    pooled = network.roi_heads.box_roi_pool(features, proposals, [(SIZE, SIZE)] * len(images))
    scores, boxes = network.roi_heads.box_predictor(network.roi_heads.box_head(pooled))
    return [*features.values(), *objectness, *offsets, scores, boxes]


def relative(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@torch.no_grad()
def test_a_detectors_twin_is_equal_up_to_the_order_of_its_boxes() -> None:
    network, images = detector(), torch.rand(1, 3, SIZE, SIZE)
    twin = dynaconv.dynamize(network, noise=0.0)
    assert sum(isinstance(module, DynamicLayer) for module in twin.modules()) > 20
    proposals = [torch.tensor([[0.0, 0, 50, 50], [10, 20, 100, 120], [3, 3, 30, 100]])]
    wanted = raw(network, images, proposals)
    for ours, theirs in zip(raw(twin, images, proposals), wanted, strict=True):
        assert relative(ours, theirs) < 1e-5
    found, by_twin = (one([images[0]])[0] for one in (network, twin))
    distance = torch.cdist(found["boxes"], by_twin["boxes"], p=float("inf")).amin(1)
    assert len(distance) == 100
    assert (distance < 0.05).sum() >= 95
