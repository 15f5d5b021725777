"""Top-down keypoint networks, 256x192: a backbone and one of two heads (Chen et al. 2020, section 5.2, Tables 9 to 11).

Type A has the deconvolution head of Xiao et al. 2018; type B upsamples bilinearly before MobileNetV2 bottlenecks.
``timm.create_model("keypoints_b_dy_mobilenetv2_050", num_keypoints=17)`` returns heat maps ``(B, 17, 64, 48)``.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import timm
import torch.nn.functional as F
from torch import Tensor, nn

from dynaconv.layers import DynamicConv2d, DynamicConvTranspose2d
from dynaconv.models.builder import TWINS, register_entrypoint
from dynaconv.routing import SoftmaxRouter, check_experts

SIZE = (256, 192)
BACKBONES = {
    "resnet18": "dy_resnet18",
    "mobilenetv2_100": "dy_mobilenetv2_100",
    "mobilenetv2_050": "dy_mobilenetv2_050",
    "mobilenetv3_small": "dy_mobilenetv3_small",
}


class Backbone(nn.Module):
    """A network of this package without its classifier: ``(B, 3, H, W)`` to ``(B, channels, H / 32, W / 32)``.

    The last 1x1 convolution is kept; the layer that MobileNetV3 has between pooling and classifier is removed.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        model.reset_classifier(0)
        self.out_channels: int = model.num_features
        if hasattr(model, "norm_head"):  # MobileNetV3: this convolution stands after the pooling
            model.conv_head = nn.Identity()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.model.forward_features(x)
        return features


def _router(temperature: float) -> Any:
    return partial(SoftmaxRouter, temperature=temperature)


class DeconvolutionHead(nn.Module):
    """Type A: three 4x4 deconvolutions with stride 2 and 256 channels, then a 1x1 convolution to the heat maps."""

    def __init__(self, in_channels: int, keypoints: int, *, experts: int = 0, temperature: float = 30.0) -> None:
        super().__init__()
        make: Any = nn.ConvTranspose2d
        if experts:
            make = partial(DynamicConvTranspose2d, experts=experts, router=_router(temperature))
        layers: list[nn.Module] = []
        for channels in (in_channels, 256, 256):
            deconvolution = make(channels, 256, 4, stride=2, padding=1, bias=False)
            nn.init.normal_(deconvolution.weight, std=0.001)  # as Xiao et al. draw them
            layers += [deconvolution, nn.BatchNorm2d(256), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers)
        self.final = _final(256, keypoints)

    def forward(self, x: Tensor) -> Tensor:
        heat: Tensor = self.final(self.layers(x))
        return heat


class Bottleneck(nn.Module):
    """MobileNetV2's block with a 5x5 depthwise convolution; ``hidden`` 0 leaves out the expansion.

    With ``experts`` its convolutions are dynamic, each with a router of its own.
    """

    def __init__(
        self, in_channels: int, hidden: int, out_channels: int, *, experts: int = 0, temperature: float = 30.0
    ) -> None:
        super().__init__()
        make: Any = nn.Conv2d
        if experts:
            make = partial(DynamicConv2d, experts=experts, router=_router(temperature))
        wide = hidden or in_channels
        if hidden:
            self.conv_pw: nn.Module | None = make(in_channels, wide, 1, bias=False)
            self.bn1: nn.Module | None = nn.BatchNorm2d(wide)
        else:
            self.conv_pw = self.bn1 = None
        self.conv_dw = make(wide, wide, 5, padding=2, groups=wide, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)
        self.conv_pwl = make(wide, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.act = nn.ReLU6()
        self.has_skip = in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y = x
        if self.conv_pw is not None and self.bn1 is not None:
            y = self.act(self.bn1(self.conv_pw(y)))
        y = self.act(self.bn2(self.conv_dw(y)))
        y = self.bn3(self.conv_pwl(y))
        return x + y if self.has_skip else y


class BottleneckHead(nn.Module):
    """Type B (Table 9): three times bilinear upsampling by 2 and bottlenecks, then a static 1x1 convolution.

    The first block has no expansion: with one, as the table may be read, the head would have 2.05M parameters instead
    of the published 1.2M.
    """

    def __init__(self, in_channels: int, keypoints: int, *, experts: int = 0, temperature: float = 30.0) -> None:
        super().__init__()
        block = partial(Bottleneck, experts=experts, temperature=temperature)
        self.stages = nn.ModuleList(
            [
                nn.Sequential(block(in_channels, 0, 256), block(256, 768, 256)),
                block(256, 768, 128),
                block(128, 384, 128),
            ]
        )
        self.final = _final(128, keypoints)

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False))
        heat: Tensor = self.final(x)
        return heat


def _final(channels: int, keypoints: int) -> nn.Conv2d:
    layer = nn.Conv2d(channels, keypoints, 1)
    nn.init.normal_(layer.weight, std=0.001)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


class KeypointNetwork(nn.Module):
    """Backbone and head: ``(B, 3, H, W)`` to one heat map for each keypoint, ``(B, num_keypoints, H / 4, W / 4)``."""

    def __init__(self, backbone: Backbone, head: nn.Module, num_keypoints: int) -> None:
        super().__init__()
        self.backbone, self.head, self.num_keypoints = backbone, head, num_keypoints

    def forward(self, x: Tensor) -> Tensor:
        heat: Tensor = self.head(self.backbone(x))
        return heat


def keypoint_network(
    backbone: str,
    head: str,
    *,
    num_keypoints: int = 17,
    dynamic_backbone: bool = False,
    dynamic_head: bool = False,
    experts: int = 4,
    temperature: float = 30.0,
) -> KeypointNetwork:
    """Build a keypoint network.

    Args:
        backbone: a key of :data:`BACKBONES`.
        head: ``"a"`` (deconvolutions) or ``"b"`` (bilinear upsampling and bottlenecks).
        num_keypoints: heat maps to predict; 17 for COCO's persons.
        dynamic_backbone, dynamic_head: which part is dynamic (Table 11 varies both).
        experts: K of the dynamic parts.
        temperature: initial temperature of their softmax routers.
    """
    for name, value in (("dynamic_backbone", dynamic_backbone), ("dynamic_head", dynamic_head)):
        if not isinstance(value, bool):
            raise ValueError(f"{name} is {value!r}; expected True or False")
    if not isinstance(num_keypoints, int) or isinstance(num_keypoints, bool) or num_keypoints < 1:
        raise ValueError(f"num_keypoints is {num_keypoints!r}; expected a whole number of at least 1")
    check_experts(experts)
    kind: dict[str, Any] = {"experts": experts, "temperature": temperature} if dynamic_backbone else {"static": True}
    features = Backbone(timm.create_model(BACKBONES[backbone], drop_rate=0.0, **kind))
    make = DeconvolutionHead if head == "a" else BottleneckHead
    made = make(features.out_channels, num_keypoints, experts=experts if dynamic_head else 0, temperature=temperature)
    return KeypointNetwork(features, made, num_keypoints)


for _backbone, _dynamic in BACKBONES.items():
    for _head in ("a", "b"):
        register_entrypoint(
            f"keypoints_{_head}_{_backbone}",
            partial(keypoint_network, _backbone, _head),
            (3, *SIZE),
            17,
            f"Chen 2020, Table 10, type {_head.upper()} on {_backbone}, static",
        )
        register_entrypoint(
            f"keypoints_{_head}_{_dynamic}",
            # The paper has dynamic deconvolutions nowhere: type A is dynamic in its backbone alone.
            partial(keypoint_network, _backbone, _head, dynamic_backbone=True, dynamic_head=_head == "b"),
            (3, *SIZE),
            17,
            f"Chen 2020, Table 10, type {_head.upper()} on {_dynamic}",
        )
        TWINS[f"keypoints_{_head}_{_backbone}"] = "dynamic", f"keypoints_{_head}_{_dynamic}"
