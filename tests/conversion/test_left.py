"""Layers that a replacement would break are left, with the reason; what was set on the others is kept."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.video.resnet import Conv3DNoTemporal, Conv3DSimple

import dynaconv
from dynaconv.layers import DynamicConv2d, DynamicConv3d, DynamicConvTranspose2d
from tolerances import assert_close


class Reads(nn.Module):
    """A network that calls a convolution and does something else with its weight."""

    def __init__(self, read: str) -> None:
        super().__init__()
        self.read = read
        self.stem, self.layer, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y, weight = self.layer(self.stem(x)), self.layer.weight
        if self.read == "norm":
            y = y / weight.flatten(1).norm(dim=1).view(1, -1, 1, 1)
        elif self.read == "again":
            y = F.conv2d(y, weight)
        elif self.read == "shape":
            y = y * weight.shape[0]
        elif self.read == "list":
            y = y + torch.stack([self.layer.bias, self.stem.bias]).sum()
        elif self.read == "dtype":
            y = y.to(weight.dtype).to(weight).type_as(weight).to(weight.device)
        return self.last(y)


@pytest.mark.parametrize(
    ("read", "part"), [("norm", "weight"), ("again", "weight"), ("shape", "weight"), ("list", "bias")]
)
def test_a_layer_that_is_called_and_read_is_left(read: str, part: str) -> None:
    network, x = Reads(read).eval(), torch.randn(2, 3, 16, 16)
    twin = dynaconv.dynamize(network, noise=0.0)
    why = {layer.name: layer.reason for layer in twin.dynamize_report.left}
    assert why["layer"] == f"the network reads its {part} beside calling it, and would find K experts there"
    assert isinstance(twin.last, DynamicConv2d)
    assert_close(twin(x), network(x), scale=float(network(x).detach().abs().max()) * 10)
    with pytest.raises(ValueError, match=r"nothing to replace in Reads.*reads its"):
        dynaconv.dynamize(network, include="layer")


def test_a_layer_whose_dtype_and_device_are_asked_becomes_dynamic() -> None:
    assert isinstance(dynaconv.dynamize(Reads("dtype")).layer, DynamicConv2d)


class Distances(nn.Module):
    """The layer of YOLO's detectors that turns a distribution over distances into their mean: 0, 1, 2 ... are fixed."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.mean = nn.Conv2d(8, 1, 1, bias=False).requires_grad_(False)
        self.mean.weight.data[:] = torch.arange(8.0).view(1, 8, 1, 1)
        self.last = nn.Conv2d(1, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.mean(self.stem(x).softmax(1)))


def test_a_fixed_kernel_is_left_unless_it_is_included() -> None:
    twin = dynaconv.dynamize(Distances())
    assert isinstance(twin.last, DynamicConv2d)
    assert twin.mean.weight.flatten().tolist() == list(range(8))
    assert "its kernel is fixed (requires_grad=False)" in {row.name: row.reason for row in twin.dynamize_report}["mean"]
    asked = dynaconv.dynamize(Distances(), include="mean").mean
    assert isinstance(asked, DynamicConv2d)
    assert not asked.weight.requires_grad
    assert next(asked.router.parameters()).requires_grad


def test_a_network_that_is_frozen_as_a_whole_becomes_dynamic_and_its_routers_alone_train() -> None:
    """Where nothing trains (a feature extractor, a fused detector), that a kernel does not says nothing of it."""
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)).requires_grad_(False)
    twin = dynaconv.dynamize(network)
    assert [layer.name for layer in twin.dynamize_report.replaced] == ["1", "2"]
    trained = {name for name, parameter in twin.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in twin.named_parameters() if ".router." in name}
    twin(torch.randn(2, 3, 8, 8)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in twin.parameters() if parameter.requires_grad)


@pytest.mark.parametrize(
    "kind", ["_register_state_dict_hook", "register_forward_pre_hook", "register_full_backward_hook"]
)
def test_a_layer_with_hooks_is_left_and_they_are_called(kind: str) -> None:
    network, seen = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)), []
    getattr(network[1], kind)(lambda *_: seen.append(1))
    twin = dynaconv.dynamize(network, input_size=(3, 8, 8))
    assert "hooks" in {layer.name: layer.reason for layer in twin.dynamize_report.left}["1"]
    seen.clear()
    twin(torch.randn(1, 3, 8, 8)).sum().backward()
    twin.state_dict()
    assert seen == [1]


def test_hooks_of_the_blocks_around_a_layer_stay() -> None:
    network, seen = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.Conv2d(4, 4, 1))), []
    network[1].register_forward_hook(lambda *_: seen.append(1))
    twin = dynaconv.dynamize(network, input_size=(3, 8, 8))
    assert isinstance(twin[1][0], DynamicConv2d)
    seen.clear()
    twin(torch.randn(1, 3, 8, 8))
    assert seen == [1]


def test_a_forward_that_was_put_on_the_instance_is_not_lost() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))
    own = network[1].forward
    network[1].forward = lambda x: own(x).abs()
    why = {layer.name: layer.reason for layer in dynaconv.dynamize(network, input_size=(3, 8, 8)).dynamize_report.left}
    assert "its forward was replaced" in why["1"]


class Indexed(nn.Module):
    """Reads what was set on its layers, as YOLO's networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(4, 4, 2, stride=2), nn.Conv2d(4, 4, 1)])
        for index, layer in enumerate(self.layers):
            layer.source = index - 1

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x) + layer.source
        return x


def test_attributes_that_were_set_on_a_layer_stay() -> None:
    network, x = Indexed().eval(), torch.randn(2, 3, 8, 8)
    twin = dynaconv.dynamize(network, noise=0.0)
    assert isinstance(twin.layers[1], DynamicConvTranspose2d)
    assert not hasattr(twin.layers[2], "_reversed_padding_repeated_twice")
    assert_close(twin(x), network(x), scale=10.0)


class WithArguments(nn.Conv2d):
    """Sets constructor arguments, nothing else."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1, groups=channels, bias=False)


class OtherForward(WithArguments):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).relu()


class OtherConvolution(WithArguments):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, weight * 2, bias)


class OtherWeight(WithArguments):
    """An equalised convolution: the weight is computed from a parameter of another name."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self._parameters["raw"] = self._parameters.pop("weight")

    def __getattr__(self, name: str) -> object:
        made = name == "weight" and "raw" in self._parameters
        return self._parameters["raw"] * 0.5 if made else super().__getattr__(name)


def test_a_subclass_that_changes_no_computation_becomes_dynamic() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), WithArguments(4)).eval()
    x = torch.randn(2, 3, 8, 8)
    twin = dynaconv.dynamize(network, noise=0.0)
    assert isinstance(twin[1], DynamicConv2d)
    assert_close(twin(x), network(x), scale=10.0)
    video = nn.Sequential(nn.Conv3d(3, 4, 1), Conv3DSimple(4, 4), Conv3DNoTemporal(4, 4)).eval()
    twin = dynaconv.dynamize(video, noise=0.0, input_size=(3, 4, 8, 8))
    assert all(isinstance(layer, DynamicConv3d) for layer in twin[1:])
    x = torch.randn(2, 3, 4, 8, 8)
    assert_close(twin(x), video(x), scale=10.0)


@pytest.mark.parametrize("kind", [OtherForward, OtherConvolution, OtherWeight])
def test_a_subclass_that_computes_something_else_is_left(kind: type[nn.Module]) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), kind(4), nn.Conv2d(4, 4, 1))
    twin = dynaconv.dynamize(network)
    assert type(twin[1]) is type(network[1])
    assert "behaviour of its own" in {layer.name: layer.reason for layer in twin.dynamize_report.left}["1"]


def test_the_output_projection_of_attention_is_never_replaced() -> None:
    network = nn.TransformerEncoderLayer(8, 2, 16)
    twin = dynaconv.dynamize(network, include=nn.Linear)
    assert type(twin.self_attn.out_proj) is type(network.self_attn.out_proj)


class Generator(nn.Sequential):
    """Begins with a transposed convolution, as the generators of GANs do."""

    def __init__(self, kind: type[nn.Module], own: type[nn.Module], taps: int) -> None:
        super().__init__(kind(16, 8, 4), nn.Sequential(kind(8, 8, 4, 2, 1), nn.ReLU(), own(8, 3, taps)))


@pytest.mark.parametrize(
    ("kind", "own"),
    [(nn.ConvTranspose1d, nn.Conv1d), (nn.ConvTranspose2d, nn.Conv2d), (nn.ConvTranspose3d, nn.Conv3d)],
)
def test_a_generator_is_observed_on_a_code(kind: type[nn.Module], own: type[nn.Module]) -> None:
    twin = dynaconv.dynamize(Generator(kind, own, 1), share="block")
    assert {layer.name: layer.replaced for layer in twin.dynamize_report} == {"0": False, "1.0": True, "1.2": True}


def test_a_network_registered_the_other_way_round_is_still_observed() -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.ConvTranspose2d(8, 3, 2, stride=2), nn.Conv2d(3, 8, 2, stride=2)

        def forward(self, x: Tensor) -> Tensor:
            return self.up(self.down(x))

    report = dynaconv.dynamize(Late()).dynamize_report
    assert [layer.name for layer in report.replaced] == ["up"]


def test_where_no_size_fits_the_message_says_what_was_tried_and_what_to_give() -> None:
    network = nn.Sequential(nn.Linear(5, 16), nn.Unflatten(1, (16, 1, 1)), Generator(nn.ConvTranspose2d, nn.Conv2d, 1))
    with pytest.raises(
        ValueError, match=r"Sequential did not run on inputs of the usual sizes: \(16, 1, 1\).*input_size"
    ):
        dynaconv.dynamize(network, share="block")
    assert dynaconv.dynamize(network, share="block", input_size=(5,)).dynamize_report.replaced
