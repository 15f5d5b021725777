"""timm's CondConv checkpoints, there and back; with random weights, since there is no network here."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from dynaconv.layers import CondConv2d
from dynaconv.models import from_timm, to_timm
from dynaconv.routing import SigmoidRouter
from models.nets import alive, images


def theirs(name: str, size: int = 64, **arguments: object) -> nn.Module:
    """timm's network with the batch statistics that training would leave."""
    torch.manual_seed(7)
    return alive(timm.create_model(name, num_classes=6, **arguments))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("tf_efficientnet_cc_b0_4e", 65),  # odd: SAME pads bottom and right more than top and left
        ("efficientnet_cc_b0_8e", 64),
        pytest.param("tf_efficientnet_cc_b0_8e", 97, marks=pytest.mark.slow),
        pytest.param("tf_efficientnet_cc_b1_8e", 96, marks=pytest.mark.slow),
    ],
)
def test_there_and_back(name: str, size: int) -> None:
    network = theirs(name)
    ours = from_timm(network)
    back = to_timm(ours)
    x = images(3, size)
    with torch.no_grad():
        expected = network(x)
        assert expected.std() > 0.01
        assert (ours(x) - expected).abs().max() <= 1e-5 * expected.abs().max()
        assert torch.equal(back(x), expected)
    state, returned = network.state_dict(), back.state_dict()
    assert list(state) == list(returned)
    assert all(torch.equal(state[key], returned[key]) for key in state)
    assert type(back) is type(network)
    assert not ours.training
    assert sum(isinstance(module, CondConv2d) for module in ours.modules()) >= 24
    assert ours.get_submodule("blocks.4.0.router").__class__ is SigmoidRouter
    assert ours.pretrained_cfg["mean"] == network.pretrained_cfg["mean"]
    assert ours.pretrained_cfg["input_size"] == network.pretrained_cfg["input_size"]


def test_from_a_state_dict() -> None:
    network = theirs("tf_efficientnet_cc_b0_4e", in_chans=3)
    ours = from_timm(network.state_dict())
    x = images(2, 65)
    with torch.no_grad():
        assert torch.allclose(ours(x), network(x), atol=1e-5)
    assert ours.pretrained_cfg["mean"] == (0.5, 0.5, 0.5)
    assert from_timm(network.double().state_dict()).conv_stem.weight.dtype == torch.float64


def test_training_settings_come_along() -> None:
    network = timm.create_model("tf_efficientnet_cc_b0_4e", drop_rate=0.3, drop_path_rate=0.2, num_classes=3).train()
    ours = from_timm(network)
    assert ours.training
    assert ours.drop_rate == 0.3
    rates = [block.drop_path.drop_prob for stage in network.blocks[1:] for block in stage]
    assert [block.drop_path.drop_prob for stage in ours.blocks[1:] for block in stage] == pytest.approx(rates)
    assert ours.bn1.eps == 1e-3


def test_by_name_without_a_network() -> None:
    assert from_timm("tf_efficientnet_cc_b0_4e", pretrained=False).num_classes == 1000
    with pytest.raises(RuntimeError, match=r"weights of tf_efficientnet_cc_b0_4e cannot be had.*local"):
        from_timm("tf_efficientnet_cc_b0_4e")


def test_what_is_none_of_them_is_named() -> None:
    with pytest.raises(ValueError, match="Did you mean 'tf_efficientnet_cc_b0_4e'"):
        from_timm("tf_efficientnet_cc_b0_4")
    with pytest.raises(ValueError, match="ResNet is no CondConv network of timm"):
        from_timm(timm.create_model("resnet10t"))
    with pytest.raises(ValueError, match="routing_fn"):
        from_timm({"weight": torch.zeros(1)})
    state = timm.create_model("efficientnet_cc_b0_4e", num_classes=2).state_dict()
    missing = {key: tensor for key, tensor in state.items() if key != "bn1.weight"}
    with pytest.raises(ValueError, match=r"bn1.weight is missing"):
        from_timm(missing)
    with pytest.raises(ValueError, match=r"bm1.weight is unknown. Did you mean 'bn1.weight'"):
        from_timm({**state, "bm1.weight": torch.zeros(32)})
    other = {key: tensor for key, tensor in state.items() if "blocks.6" not in key}
    with pytest.raises(ValueError, match="none of timm's CondConv networks"):
        from_timm(other)


def test_a_network_that_timm_has_not() -> None:
    with pytest.raises(ValueError, match="none of timm's CondConv networks"):
        to_timm(timm.create_model("condconv_efficientnet_b0", experts=3, num_classes=2))
