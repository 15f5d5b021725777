"""Networks that decide by their numbers: counted and observed with them, and refused where the input decides."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import dynaconv
from dynaconv.counting import cost
from dynaconv.layers import DynamicConv2d


class Grid(nn.Module):
    """A detector's head that makes a grid of anchors at first, from the strides in a buffer (a freshly built YOLO)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, stride=8, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.register_buffer("strides", torch.tensor([8.0, 16.0]))
        self.anchors = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(self.stem(x))
        if not self.anchors.numel():
            self.anchors = torch.full(tuple(y.shape[2:]), self.strides[0])
        return y * self.anchors


def test_values_of_buffers_may_decide() -> None:
    network = Grid()
    before = copy.deepcopy(network.state_dict())
    report = cost(network, (3, 64, 64))
    assert report.total == 64 * (9 * 3 * 8 + 9 * 8 * 8)
    assert report.parameters.total == 9 * 3 * 8 + 8 + 9 * 8 * 8 + 8
    assert report.peak_activation_bytes > 4 * 3 * 64 * 64
    assert not network.anchors.numel(), "the network itself has run"
    assert all(torch.equal(before[key], tensor) for key, tensor in network.state_dict().items())


def test_the_generator_of_random_numbers_is_left_alone() -> None:
    network = nn.Sequential(Grid(), nn.Dropout())
    state = torch.random.get_rng_state()
    cost(network, (3, 64, 64))
    dynaconv.dynamize(network, noise=0.0)
    dynaconv.dynamize(network, noise=0.0, input_size=(3, 64, 64))
    torch.random.set_rng_state(state)
    cost(network, (3, 64, 64))
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("share", ["layer", "block"])
def test_they_can_be_observed(share: str) -> None:
    twin = dynaconv.dynamize(Grid(), share=share, input_size=(3, 64, 64))
    assert isinstance(twin.head, DynamicConv2d)
    assert {layer.name for layer in twin.dynamize_report.left} == {"stem"}
    assert cost(twin, (3, 64, 64)).parameters.experts == 4 * (9 * 8 * 8 + 8)


def test_without_numbers_they_cannot_be_counted() -> None:
    with torch.device("meta"):
        network = Grid()
    with pytest.raises(ValueError, match=r"does not run on input of shape \(1, 3, 64, 64\): in the model itself"):
        cost(network, (3, 64, 64))


class Loops(nn.Module):
    """Runs its layer once or twice, as the values of the input say."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x)) if x.min() < 0 else self.layer(x)


def test_values_of_the_input_may_not_decide_unless_they_are_given() -> None:
    with pytest.raises(ValueError, match=r"depends on the values of its input: two made-up ones cost 576 and 1152"):
        cost(Loops(), (3, 8, 8))
    assert cost(Loops(), inputs=-torch.ones(1, 3, 8, 8)).total == 1152
    assert cost(Loops(), inputs=torch.ones(1, 3, 8, 8)).total == 576


class Picks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[x.sum(-1) > 0] @ x.new_ones(x.shape[-1], 2)


def test_shapes_that_the_input_decides_are_counted_on_real_tensors_alone() -> None:
    with pytest.raises(ValueError, match=r"cost of the model depends on the values in its input.*shape of what aten::"):
        cost(Picks(), (3, 4))
    x = torch.ones(1, 3, 4)
    x[0, 0] = -1
    assert cost(Picks(), inputs=x).total == 2 * 4 * 2


def test_a_network_that_runs_in_no_way_says_so_with_its_own_error() -> None:
    class Fails(Grid):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).view(7, -1)

    with pytest.raises(ValueError, match=r"the model does not run on input of shape .*shape '\[7, -1\]' is invalid"):
        cost(Fails(), (3, 64, 64))
    with pytest.raises(ValueError, match=r"does not run on input_size=\(3, 64, 64\): shape '\[7, -1\]' is invalid"):
        dynaconv.dynamize(Fails(), input_size=(3, 64, 64))
