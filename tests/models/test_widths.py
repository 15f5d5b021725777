"""Widths: the papers' networks at any width, and the thin ResNet for small pictures."""

from __future__ import annotations

import pytest
import timm
import torch

import dynaconv.models  # noqa: F401 - registers the networks
from dynaconv.layers import DynamicConv2d
from dynaconv.tasks.network import ModelSpec, build_model


def shapes(network: torch.nn.Module) -> list[tuple[int, ...]]:
    return [tuple(tensor.shape) for tensor in network.state_dict().values()]


def test_a_width_multiplier_is_the_width_in_the_name() -> None:
    with torch.device("meta"):
        wide = timm.create_model("dy_mobilenetv2_100", width_multiplier=0.35, num_classes=10)
        named = timm.create_model("dy_mobilenetv2_035", num_classes=10)
    assert shapes(wide) == shapes(named)


def test_a_residual_network_is_scaled_too() -> None:
    with torch.device("meta"):
        network = timm.create_model("dy_resnet10", width_multiplier=0.25, static=True)
    assert [network.get_submodule(f"layer{group}.0.conv1").out_channels for group in (1, 2, 3, 4)] == [16, 32, 64, 128]


def test_resnet_20_is_he_et_als() -> None:
    """0.27 million parameters (He et al. 2016, Table 6); two shortcuts here are 1x1 convolutions, which adds 2,560."""
    network = timm.create_model("small_resnet", num_classes=10)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    convolutions = 432 + 6 * 9 * 16 * 16 + 9 * 16 * 32 + 5 * 9 * 32 * 32 + 9 * 32 * 64 + 5 * 9 * 64 * 64
    shortcuts = 16 * 32 + 32 * 64
    norms = 2 * (16 * 7 + 32 * 7 + 64 * 7)
    assert parameters == convolutions + shortcuts + norms + 650
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("method", [None, "dynamic", "condconv"])
def test_thin_trains_in_every_method(method: str | None) -> None:
    args = {"width_multiplier": 0.5, "blocks": [1, 1, 1], "stem_stride": 2}
    network = build_model(ModelSpec(name="small_resnet", method=method, args=args), 7, image_size=32)
    logits = network(torch.randn(3, 3, 32, 32))
    assert logits.shape == (3, 7)
    logits.square().sum().backward()
    dynamic = [module for module in network.modules() if isinstance(module, DynamicConv2d)]
    assert [layer.out_channels for layer in dynamic] == ([] if method is None else [8, 8, 16, 16, 16, 32, 32, 32])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width_multiplier": 0}, "width_multiplier is 0; expected a number above 0"),
        ({"blocks": []}, "blocks is"),
        ({"stem_stride": 3}, "stem_stride is 3; expected 1 or 2"),
    ],
)
def test_impossible_choices(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        timm.create_model("small_resnet", **arguments)


def test_a_wrong_word_is_named() -> None:
    with pytest.raises(TypeError, match=r"no argument 'width'.*width_multiplier"):
        timm.create_model("small_resnet", width=8)
    with pytest.raises(ValueError, match="width_multiplier is True"):
        timm.create_model("dy_mobilenetv2_035", width_multiplier=True)
