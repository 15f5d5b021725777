"""What holds for every registered network."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn

from dynaconv.layers import DynamicLayer
from dynaconv.models import ZOO, load_weights
from models.nets import ALL, QUICK, assert_equal, images, make


@pytest.mark.parametrize("name", ALL)
def test_forward_backward_and_state(name: str) -> None:
    network = make(name)
    with torch.no_grad():
        batch = images(3)
        together = network(batch)
        assert together.shape == (3, 5)
        # In float64: random batch statistics at 2x2 pixels amplify float32's rounding without bound.
        exact, wide = copy.deepcopy(network).double(), batch.double()
        for index in (0, 2):
            assert_equal(exact(wide[index : index + 1]), exact(wide)[index : index + 1], 1e-9)
        assert network(images(1, 96)).shape == (1, 5)
        again = make(name)
        again.load_state_dict(network.state_dict())
        assert torch.equal(again.eval()(batch), together)
        assert torch.equal(copy.deepcopy(network)(batch), together)
    network.train()(images(3, 96)).square().sum().backward()
    missing = [key for key, parameter in network.named_parameters() if parameter.grad is None]
    assert missing == []
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize("name", [name for name in QUICK if "resnet" not in name])
def test_the_gradient_reaches_every_expert_and_router(name: str) -> None:
    network = make(name, drop_rate=0.0).train()
    network(images(4, 96)).square().sum().backward()
    banks = {key: module for key, module in network.named_modules() if isinstance(module, DynamicLayer)}
    idle = [key for key, layer in banks.items() for expert in layer.weight.grad if not expert.any()]
    assert idle == []
    routers = [key for key, p in network.named_parameters() if ".router." in key and p.grad.any()]
    whole = [key for key, _ in network.named_parameters() if ".router." in key]
    assert len(routers) >= 0.9 * len(whole)  # a hidden layer of one or two ReLUs may be off for four images


@pytest.mark.parametrize("name", ALL)
def test_features(name: str) -> None:
    network = make(name)
    features = timm.create_model(name, features_only=True, experts=2).eval()
    missing, _ = features.load_state_dict(network.state_dict(), strict=False)
    assert missing == []
    x = images(2)
    with torch.no_grad():
        maps = features(x)
        for one, other in zip(maps, network.forward_intermediates(x, intermediates_only=True), strict=True):
            assert_equal(one, other)
    info = features.feature_info
    assert [tuple(m.shape[1:]) for m in maps] == [
        (channels, 64 // reduction, 64 // reduction)
        for channels, reduction in zip(info.channels(), info.reduction(), strict=True)
    ]
    picked = timm.create_model(name, features_only=True, experts=2, out_indices=(1, 3))
    assert picked.feature_info.channels() == [info.channels()[1], info.channels()[3]]


@pytest.mark.parametrize("name", ALL)
def test_static_weights_upgrade_into_the_network(name: str) -> None:
    twin = make(name, static=True)
    network = make(name)
    assert not any(isinstance(module, DynamicLayer) for module in twin.modules())
    assert load_weights(network, twin.state_dict()) == []
    x = images(2)
    with torch.no_grad():
        assert_equal(network(x), twin(x))
    banks = [module.weight for module in network.modules() if isinstance(module, DynamicLayer)]
    assert all(bank[0].equal(bank[1]) for bank in banks)
    load_weights(network, twin.state_dict(), noise=0.5)
    assert not any(bank[0].equal(bank[1]) for bank in banks)


@pytest.mark.parametrize("name", QUICK)
def test_every_expert_is_drawn_like_the_static_kernel(name: str) -> None:
    network = timm.create_model(name, experts=3)
    twin = timm.create_model(name, static=True)
    for key, layer in network.named_modules():
        if not isinstance(layer, DynamicLayer) or layer.weight[0].numel() < 3000:
            continue
        expected = twin.get_submodule(key).weight.std().item()
        assert layer.weight.std(dim=tuple(range(1, layer.weight.dim()))).tolist() == pytest.approx(
            [expected] * 3, rel=0.12
        )
        assert (layer.weight[0] - layer.weight[1]).std().item() == pytest.approx(2**0.5 * expected, rel=0.12)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", QUICK)
def test_compiled(name: str) -> None:
    network = make(name)
    compiled = torch.compile(network, fullgraph=True)
    x = images(2)
    with torch.no_grad():
        assert_equal(compiled(x), network(x))


def test_registered_with_timm() -> None:
    names = {*timm.list_models("dy_*"), *timm.list_models("condconv_*")}
    assert names == set(ZOO)
    assert len(names) == 18
    for name in names:
        config = timm.get_pretrained_cfg(name)
        assert config.input_size == (3, 224, 224)
        assert config.num_classes == 1000
        assert config.mean == (0.485, 0.456, 0.406)
        network = timm.create_model(name, experts=1) if name in QUICK[:2] else None
        if network is not None:
            first = network.get_submodule(config.first_conv)
            assert isinstance(first, nn.Conv2d)
            assert network.get_submodule(config.classifier) is network.get_classifier()
            assert timm.data.resolve_data_config({}, model=network)["input_size"] == (3, 224, 224)


@pytest.mark.parametrize("name", ["condconv_mobilenetv1_025", "dy_resnet10"])
def test_another_classifier(name: str) -> None:
    network = timm.create_model(name, experts=2, in_chans=1, num_classes=7)
    kind = type(network.get_classifier())
    x = torch.randn(2, 1, 64, 64)
    network.reset_classifier(4)
    assert type(network.get_classifier()) is kind
    assert network(x).shape == (2, 4)
    network.reset_classifier(0)
    assert network(x).shape == (2, network.num_features)
    network.reset_classifier(3)
    assert type(network.get_classifier()) is kind
    assert network(x).shape == (2, 3)
