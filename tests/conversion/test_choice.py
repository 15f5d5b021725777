"""Which layers are replaced, why the others are not, and what a user's mistake says."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from timm.layers import Linear
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import dynaconv
from dynaconv.layers import CondConv2d, CondLinear, DynamicConv2d, DynamicConvTranspose2d, DynamicLinear


class StdConv2d(nn.Conv2d):
    """Another library's, whose forward computes what nobody but it knows."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


class Gate(nn.Module):
    """Squeeze-and-excitation of one's own, recognised by its class name below."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, 2, 1)
        self.expand = nn.Conv2d(2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.expand(self.reduce(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class SqueezeExcitation(Gate):
    pass


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.se = SqueezeExcitation(channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.se(self.conv2(self.conv1(x).relu()))


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.blocks = nn.Sequential(Block(8), Block(8))
        self.same = Conv2dSame(8, 8, 3, stride=2)
        self.standardised = StdConv2d(8, 8, 3)
        self.normed = parametrizations.weight_norm(nn.Conv2d(8, 8, 1))
        self.up = nn.ConvTranspose2d(8, 4, 4, stride=2, padding=1)
        self.unused = nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.standardised(self.same(self.blocks(self.stem(x))))
        return self.head(self.up(self.normed(x)).mean((2, 3)))


def reasons(network: nn.Module, **options: object) -> dict[str, str]:
    return {layer.name: layer.reason for layer in dynaconv.dynamize(network, **options).dynamize_report}


def test_the_default_choice_and_its_reasons() -> None:
    network = Network()
    x = torch.randn(2, 3, 40, 40)
    twin = dynaconv.dynamize(network, noise=0.0)
    names = {layer.name for layer in twin.dynamize_report.replaced}
    assert names == {f"blocks.{i}.conv{j}" for i in (0, 1) for j in (1, 2)} | {"same", "up"}
    why = {layer.name: layer.reason for layer in twin.dynamize_report.left}
    assert "first convolution" in why["stem"]
    assert "SqueezeExcitation" in why["blocks.0.se.reduce"]
    assert "StdConv2d" in why["standardised"]
    assert "ParametrizedConv2d" in why["normed"]
    assert "does not call it" in why["unused"]
    assert "linear" in why["head"]
    assert isinstance(twin.same, DynamicConv2d)
    assert isinstance(twin.up, DynamicConvTranspose2d)
    torch.testing.assert_close(twin(x), network(x))
    table = str(twin.dynamize_report)
    assert "6 layers dynamic, 9 left" in table
    assert "blocks.1.conv2" in table


def test_a_block_shares_one_router_that_reads_the_blocks_input() -> None:
    twin = dynaconv.dynamize(Network(), method="condconv", experts=3, input_size=(3, 40, 40))
    block = twin.blocks[0]
    assert isinstance(block.conv1, CondConv2d)
    calls: list[Tensor] = []
    block.router.register_forward_hook(lambda module, args, output: calls.append(args[0]))
    inputs: list[Tensor] = []
    block.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    twin(torch.randn(2, 3, 40, 40))
    assert len(calls) == 1
    assert torch.equal(calls[0], inputs[0])
    assert {layer.router for layer in twin.dynamize_report.replaced} == {"blocks.0", "blocks.1", "same", "up"}


def test_one_router_serves_every_layer_when_asked_for() -> None:
    shared = dynaconv.dynamize(Network(), method="dynamic", share="block")
    own = dynaconv.dynamize(Network(), method="condconv", share="layer")
    assert hasattr(shared.blocks[0], "router")
    assert not hasattr(own.blocks[0], "router")


def test_include_and_exclude() -> None:
    network = Network()
    only_head = dynaconv.dynamize(network, include="head", method="condconv", experts=2)
    assert isinstance(only_head.head, CondLinear)
    assert [layer.name for layer in only_head.dynamize_report.replaced] == ["head"]
    assert isinstance(dynaconv.dynamize(network, include=nn.Linear).head, DynamicLinear)
    assert isinstance(dynaconv.dynamize(network, include="stem").stem, DynamicConv2d)
    some = dynaconv.dynamize(network, exclude=["blocks.0.*", nn.ConvTranspose2d])
    assert {layer.name for layer in some.dynamize_report.replaced} == {"blocks.1.conv1", "blocks.1.conv2", "same"}
    depthwise = dynaconv.dynamize(network, include=lambda name, layer: getattr(layer, "groups", 1) > 1)
    assert len(depthwise.dynamize_report.replaced) == 2


def test_shared_and_reused_layers_are_left() -> None:
    one = nn.Conv2d(4, 4, 1)
    tied, twice = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
    tied.weight = one.weight
    network = nn.Sequential(nn.Conv2d(3, 4, 1), one, tied, twice, nn.ReLU(), twice, nn.Conv2d(4, 4, 1))
    with pytest.warns(UserWarning, match=r"4 of the 5 layers of Sequential .* were left \(2: it shares a parameter"):
        why = reasons(network, input_size=(3, 8, 8))
    assert "shares a parameter" in why["1"]
    assert "shares a parameter" in why["2"]
    assert "several names" in why["3"]
    assert "several names" in why["5"]
    assert "replaced" in why["6"]


def test_hooks_dtype_mode_and_frozen_weights_are_respected() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)).double().eval()
    network[1].register_forward_hook(lambda *args: None)
    network[2].requires_grad_(False)
    twin = dynaconv.dynamize(network, input_size=(3, 8, 8), include=["1", "2"])
    assert isinstance(twin[1], nn.Conv2d)
    assert isinstance(twin[2], DynamicConv2d)
    assert twin[2].weight.dtype == torch.float64
    assert not twin[2].weight.requires_grad
    assert not twin[2].training
    assert next(twin[2].router.parameters()).dtype == torch.float64


def test_in_place_copies_and_pickles() -> None:
    network = Network()
    network.normed = nn.Identity()  # torch itself does not pickle parametrized modules
    assert dynaconv.dynamize(network, inplace=True, method="condconv") is network
    x = torch.randn(2, 3, 40, 40)
    expected = network.eval()(x)
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(other(x), expected)
        assert len(other.dynamize_report.replaced) == 6


def test_a_layer_alone_and_a_model_on_meta() -> None:
    assert isinstance(dynaconv.dynamize(nn.Linear(3, 4), include="*"), DynamicLinear)
    with torch.device("meta"):
        network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1))
        assert dynaconv.dynamize(network, method="condconv", share="layer")[1].weight.device.type == "meta"
    assert dynaconv.dynamize(network)[1].weight.device.type == "meta"


def test_timms_linear_is_a_linear_layer() -> None:
    network = nn.Sequential(nn.Flatten(), Linear(12, 5))
    assert isinstance(dynaconv.dynamize(network, include="1", input_size=(3, 2, 2))[1], DynamicLinear)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "condconf"}, "Did you mean 'condconv'"),
        ({"experts": 0}, "experts is 0"),
        ({"share": "blocks"}, "Did you mean 'block'"),
        ({"include": "blokcs.*"}, "matches no convolution"),
        ({"exclude": "steem"}, "Did you mean 'stem'"),
        ({"noise": -1.0}, "noise is -1.0"),
        ({"input_size": (4, 40, 40)}, "does not run on input_size"),
        ({"router": "sigmod"}, "router is 'sigmod'. Did you mean 'sigmoid'"),
        ({"include": "standardised"}, "behaviour of its own"),
        ({"experts": 4, "donors": [Network()]}, "1 donors for 4 experts"),
        ({"donors": [nn.Sequential()]}, "same architecture"),
    ],
)
def test_mistakes_are_named_and_change_nothing(options: dict[str, object], message: str) -> None:
    network = Network()
    with pytest.raises(ValueError, match=message):
        dynaconv.dynamize(network, inplace=True, **options)
    assert not any(isinstance(module, (DynamicConv2d, DynamicLinear)) for module in network.modules())


def test_a_block_scope_needs_to_see_the_blocks() -> None:
    class NeedsTwo(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.b(self.a(x) + y)

    with pytest.raises(ValueError, match="share='layer'"):
        dynaconv.dynamize(NeedsTwo(), method="condconv")
    assert len(dynaconv.dynamize(NeedsTwo(), method="dynamic").dynamize_report.replaced) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("stem.bias"), "stem.bias is missing"),
        (lambda state: state.update(steem=torch.zeros(1)), "steem is unknown"),
        (lambda state: state.update({"head.weight": torch.zeros(7, 4)}), r"head.weight has shape \(7, 4\)"),
    ],
)
def test_load_static_names_what_does_not_fit(change: object, message: str) -> None:
    network = Network()
    twin = dynaconv.dynamize(network)
    state = dict(network.state_dict())
    change(state)
    before = copy.deepcopy(twin.state_dict())
    with pytest.raises(ValueError, match=message):
        dynaconv.load_static(twin, state)
    assert all(torch.equal(before[key], tensor) for key, tensor in twin.state_dict().items())


def test_load_static_skips_a_classifier_of_other_classes() -> None:
    network = Network()
    twin = dynaconv.dynamize(network)
    state = {**network.state_dict(), "head.weight": torch.zeros(7, 4), "head.bias": torch.zeros(7)}
    head = twin.head.weight.clone()
    dynaconv.load_static(twin, state, skip=["head.*"])
    assert torch.equal(twin.head.weight, head)


@pytest.mark.parametrize(("name", "kind"), [("sigmoid", dynaconv.SigmoidRouter), ("softmax", dynaconv.SoftmaxRouter)])
def test_routers_by_name(name: str, kind: type[nn.Module]) -> None:
    for method in ("dynamic", "condconv"):
        twin = dynaconv.dynamize(Network(), method=method, share="layer", router=name, noise=0.0)
        assert {type(twin.get_submodule(layer.name).router) for layer in twin.dynamize_report.replaced} == {kind}
    assert type(DynamicConv2d(3, 4, 3, router=name).router) is kind
    with pytest.raises(ValueError, match=r"router is 'softmaxx'\. Did you mean 'softmax'"):
        DynamicConv2d(3, 4, 3, router="softmaxx")
