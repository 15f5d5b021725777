"""A twin with noise 0 computes what the network computed."""

from __future__ import annotations

import pytest
import torch

import dynaconv
from conversion.networks import FAST, SLOW, build, picture
from dynaconv.layers import DynamicLayer
from tolerances import assert_close

NETWORKS = [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


@pytest.mark.parametrize("method", ["dynamic", "condconv"])
@pytest.mark.parametrize("name", NETWORKS)
def test_twin_computes_what_the_network_computes(name: str, method: str) -> None:
    network, x = build(name), picture()
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    with torch.no_grad():
        expected = network(x)
        twin = dynaconv.dynamize(network, method=method, noise=0.0)
        assert_close(twin(x), expected, scale=float(expected.abs().max()) * 10, what=name)
        assert torch.equal(network(x), expected), "the network itself has changed"
    assert any(isinstance(module, DynamicLayer) for module in twin.modules())
    assert not any(isinstance(module, DynamicLayer) for module in network.modules())
    assert all(torch.equal(network.state_dict()[key], tensor) for key, tensor in before.items())


@pytest.mark.parametrize("method", ["dynamic", "condconv"])
def test_what_was_not_replaced_keeps_its_keys_and_what_was_gains_one_dimension(method: str) -> None:
    network = build("timm/mobilenetv2_035")
    twin = dynaconv.dynamize(network, method=method, experts=3)
    static, dynamic = network.state_dict(), twin.state_dict()
    assert set(static) <= set(dynamic)
    assert all(".router." in key for key in set(dynamic) - set(static))
    banks = {f"{layer.name}.weight" for layer in twin.dynamize_report.replaced}
    for key, tensor in static.items():
        expected = (3, *tensor.shape) if key in banks else tuple(tensor.shape)
        assert tuple(dynamic[key].shape) == expected


def test_every_parameter_of_a_noisy_twin_gets_a_gradient() -> None:
    for method in ("dynamic", "condconv"):
        twin = dynaconv.dynamize(build("timm/mobilenetv2_035"), method=method).train()
        twin(picture(batch=3, size=64)).square().sum().backward()
        dead = [name for name, p in twin.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        # at uniform routing over a relu that never fires a hidden unit of a router may be silent; weights must not be
        assert not [name for name in dead if ".router." not in name], dead


def test_noise_leaves_the_mean_of_the_experts_alone() -> None:
    network = build("timm/resnet18")
    twin = dynaconv.dynamize(network, noise=0.5)
    kernel, bank = network.layer2[0].conv1.weight.detach(), twin.layer2[0].conv1.weight.detach()
    assert_close(bank.mean(dim=0), kernel, scale=float(kernel.abs().max()) * 10)
    spread = (bank - kernel).square().mean().sqrt() / kernel.square().mean().sqrt()
    assert spread.item() == pytest.approx(0.5, rel=0.05)


def test_donors_give_their_kernels_and_routers_keep_their_own_initialisation() -> None:
    first, second, third = (build("timm/resnet18") for _ in range(3))
    twin = dynaconv.dynamize(first, method="condconv", donors=[second, third])
    bank = twin.layer1[0].conv2.weight
    for expert, source in enumerate((first, second, third)):
        assert torch.equal(bank[expert], source.layer1[0].conv2.weight)
    assert twin.layer1[0].router.fc.weight.abs().sum() > 0


def test_a_static_checkpoint_upgrades_into_a_twin() -> None:
    for method in ("dynamic", "condconv"):
        twin = dynaconv.dynamize(build("timm/mobilenetv2_035"), method=method)
        other = build("timm/mobilenetv2_035")
        upgraded = dynaconv.load_static(twin, other.state_dict())
        assert set(upgraded) == {f"{layer.name}.weight" for layer in twin.dynamize_report.replaced}
        x = picture()
        with torch.no_grad():
            expected = other(x)
            assert_close(twin.eval()(x), expected, scale=float(expected.abs().max()) * 10)
