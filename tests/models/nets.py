"""The networks of the zoo as test cases: one of each family at once, all of them in the slow run."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from dynaconv.models import ZOO

# One of each family: small widths, few experts, so that the whole file stays quick.
QUICK = ("condconv_mobilenetv1_025", "condconv_mnasnet_a1", "dy_mobilenetv2_035", "dy_mobilenetv3_small", "dy_resnet10")
ALL = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ZOO]


def make(name: str, **arguments: Any) -> nn.Module:
    """A small-classed network in evaluation mode whose activations neither vanish nor explode."""
    network = timm.create_model(name, **{"num_classes": 5, "experts": 2, **arguments})
    return alive(network).eval()


def alive(network: nn.Module) -> nn.Module:
    """Set the batch norms to the statistics of random images, as training would."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the average over all batches seen
            module.reset_running_stats()
    with torch.no_grad():
        network.train()(images(8))
    return network.eval()


def images(count: int, size: int = 64) -> Tensor:
    return torch.randn(count, 3, size, size)


def meta(name: str, **arguments: Any) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(name, **arguments)


def assert_equal(one: Tensor, other: Tensor, tolerance: float = 2e-4) -> None:
    """Equal up to float32's rounding through a whole network, relative to the largest value."""
    assert one.shape == other.shape
    scale = other.abs().max().item()
    assert scale > 1e-3
    assert (one - other).abs().max().item() <= tolerance * scale
