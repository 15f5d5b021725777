"""The networks on which conversion is shown, with the sizes at which they run quickly."""

from __future__ import annotations

import timm
import torch
import torchvision
from torch import nn

FAST = (
    "timm/mobilenetv2_035",
    "timm/resnet18",
    "timm/tf_mobilenetv3_small_minimal_100",
    "torchvision/shufflenet_v2_x0_5",
)

SLOW = (
    "timm/resnet50",
    "timm/efficientnet_b0",
    "timm/tf_efficientnet_b0",
    "timm/mobilenetv3_small_100",
    "timm/mixnet_s",
    "timm/regnety_004",
    "timm/convnext_atto",
    "timm/densenet121",
    "timm/ghostnet_100",
    "timm/hrnet_w18_small",
    "timm/vgg11_bn",
    "timm/repvgg_a0",
    "timm/edgenext_xx_small",
    "torchvision/mobilenet_v2",
    "torchvision/squeezenet1_1",
    "torchvision/densenet121",
    "torchvision/googlenet",
    "torchvision/efficientnet_b0",
    "torchvision/mnasnet0_5",
    "torchvision/convnext_tiny",
    "torchvision/vgg11",
)


def build(name: str) -> nn.Module:
    """The network in evaluation mode, with batch statistics that are not all zero and one, as after training."""
    library, _, model_name = name.partition("/")
    if library == "timm":
        network = timm.create_model(model_name)
    else:
        extra = {"init_weights": True, "aux_logits": False} if model_name == "googlenet" else {}
        network = torchvision.models.get_model(model_name, **extra)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval()


def picture(batch: int = 2, size: int = 96) -> torch.Tensor:
    return torch.randn(batch, 3, size, size)
