"""Weight-standardised convolutions become dynamic: every expert is standardised on its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from timm.layers import ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame
from torch import Tensor, nn

import dynaconv
from dynaconv.layers import DynamicLayer, DynamicStdConv2d
from tolerances import assert_close

KINDS = [StdConv2d, StdConv2dSame, ScaledStdConv2d, ScaledStdConv2dSame]


def network_of(kind: type[nn.Module]) -> nn.Module:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), kind(8, 8, 3, stride=2, bias=True), kind(8, 8, 3, groups=4), nn.ReLU(), kind(8, 4, 1)
    ).eval()
    with torch.no_grad():  # gains as after training
        for name, parameter in network.named_parameters():
            if name.endswith("gain"):
                parameter.uniform_(0.5, 1.5)
    return network


def images() -> Tensor:
    return torch.randn(2, 3, 12, 11)


def close(left: nn.Module, right: nn.Module, x: Tensor) -> None:
    expected = right(x)
    assert_close(left(x), expected, scale=float(expected.detach().abs().max()) * 10)


@pytest.mark.parametrize("method", ["dynamic", "condconv"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_twin_computes_what_the_network_computes(kind: type[nn.Module], method: str) -> None:
    network, x = network_of(kind), images()
    twin = dynaconv.dynamize(network, method=method, noise=0.0)
    assert [layer.name for layer in twin.dynamize_report.replaced] == ["1", "2", "4"]
    assert all(isinstance(twin[index], DynamicStdConv2d) for index in (1, 2, 4))
    close(twin, network, x)


@pytest.mark.parametrize("kind", KINDS)
def test_one_hot_routing_is_timms_layer_with_that_experts_weights(kind: type[nn.Module]) -> None:
    """Also the gradients, of the weights, the gain and the input; donors give different experts."""
    networks = [network_of(kind) for _ in range(3)]
    twin = dynaconv.dynamize(networks[0], donors=networks[1:]).get_submodule("1")
    x = torch.randn(2, 8, 9, 10, dtype=torch.float64)
    twin.double()
    for expert, network in enumerate(networks):
        static = network.double().get_submodule("1")
        ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        routing = torch.eye(3, dtype=torch.float64)[[expert, expert]]
        outputs = twin(ours, routing=routing), static(theirs)
        assert_close(*outputs, scale=10.0)
        outputs[0].square().sum().backward()
        outputs[1].square().sum().backward()
        assert_close(ours.grad, theirs.grad, scale=100.0)
        for name, parameter in static.named_parameters():
            assert_close(getattr(twin, name).grad[expert], parameter.grad, scale=1000.0)
        twin.zero_grad()


@pytest.mark.parametrize("kind", KINDS)
def test_freezing_folds_the_standardisation_into_the_bank(kind: type[nn.Module]) -> None:
    network, x = dynaconv.dynamize(network_of(kind), noise=0.5).eval(), images()
    frozen = dynaconv.freeze(network, input_size=(3, 12, 11))
    assert frozen.freeze_report.layers == ("1", "2", "4")
    assert not frozen.freeze_report.left
    close(frozen, network, x)


@pytest.mark.parametrize("kind", [StdConv2dSame, ScaledStdConv2d])
def test_checkpoints_and_files(kind: type[nn.Module], tmp_path: Path) -> None:
    """A static checkpoint fills the twin (the gain too); a saved twin is built anew with its scale and eps."""
    trained, x = network_of(kind), images()
    twin = dynaconv.dynamize(network_of(kind), noise=0.0).eval()
    dynaconv.load_static(twin, trained.state_dict())
    close(twin, trained, x)
    path = tmp_path / "twin.safetensors"
    dynaconv.save(twin, path, factory=lambda: network_of(kind))
    loaded = dynaconv.load(path, factory=lambda: network_of(kind)).eval()
    assert torch.equal(loaded(x), twin(x))


def test_a_network_of_timms_trains_and_is_counted() -> None:
    network = timm.create_model("nf_regnet_b0", num_classes=3)
    twin = dynaconv.dynamize(network, noise=0.0)
    assert sum(isinstance(module, DynamicStdConv2d) for module in twin.modules()) > 20
    x = torch.randn(2, 3, 64, 64)
    close(twin.eval(), network.eval(), x)
    twin.train()(x).square().mean().backward()
    assert all(parameter.grad is not None for parameter in twin.parameters())
    layers = [layer for layer in twin.modules() if isinstance(layer, DynamicLayer)]
    assert dynaconv.cost(twin, (3, 64, 64)).mixing == sum(layer.weight.numel() for layer in layers)


@pytest.mark.parametrize(
    ("options", "message"), [({"kernel_size": 1, "groups": 4}, "no variance"), ({"eps": 0.0}, "eps is 0.0")]
)
def test_mistakes_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dynaconv.DynamicStdConv2d(4, 4, **{"kernel_size": 3, **options})
