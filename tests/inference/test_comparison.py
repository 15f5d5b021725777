"""Every tensor in an output is found and compared; where nothing could be, freezing is refused."""

from __future__ import annotations

import dataclasses
import math
from collections import OrderedDict, namedtuple
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dynaconv import DynamicConv2d, freeze
from dynaconv.inference.comparison import compare, tensors_in
from tolerances import assert_close

NAN, INF = math.nan, math.inf


@dataclasses.dataclass
class Out:
    feature: Tensor
    logits: Tensor


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self, a: Tensor, b: Tensor) -> None:
        self.a, self.b = a, b


class Words(OrderedDict[str, Tensor]):
    """A dictionary that pytree does not know."""


Pair = namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    "pack",
    [
        lambda a, b: (a, [b]),
        lambda a, b: {"a": {"b": a}, "c": b},
        Out,
        lambda a, b: [Out(a, b)],
        lambda a, b: Out(a, {"x": b}),
        Slotted,
        Pair,
        lambda a, b: SimpleNamespace(a=a, more=SimpleNamespace(b=b)),
        lambda a, b: Words(a=a, b=b),
        lambda a, b: torch.distributions.Normal(a, b),
    ],
)
def test_tensors_are_found_in(pack: Any) -> None:
    a, b = torch.randn(3), torch.rand(3)
    found = tensors_in(pack(a, b))
    for tensor in (a, b):
        assert sum(torch.equal(tensor, other) for other in found) == 1


def test_an_object_that_holds_itself_is_walked_once() -> None:
    loop = SimpleNamespace(x=torch.ones(1))
    loop.me = loop
    assert len(tensors_in(loop)) == 1


@pytest.mark.parametrize(
    ("want", "have", "error"),
    [
        ([1.0, 2.0], [1.0, 2.5], 0.25),
        ([1.0, NAN], [1.0, NAN], 0.0),
        ([1.0, INF], [1.0, INF], 0.0),
        ([1.0, 2.0], [1.0, NAN], INF),
        ([1.0, NAN], [1.0, 2.0], INF),
        ([1.0, INF], [1.0, -INF], INF),
        ([1.0, INF], [1.0, NAN], INF),
        ([1.0, 2.0], [1.0, 2.0, 3.0], INF),
        ([0.0, 0.0], [0.0, 0.5], 0.5),
    ],
)
def test_the_error_counts_what_is_not_finite(want: list[float], have: list[float], error: float) -> None:
    assert compare(torch.tensor(want), torch.tensor(have)).error == error
    assert compare(Out(torch.ones(1), torch.tensor(want)), Out(torch.ones(1), torch.tensor(have))).error == error


@pytest.mark.parametrize("nothing", [None, "text", [], torch.empty(0), torch.full((2,), NAN), Out(torch.empty(0), 1)])
def test_nothing_to_compare_is_an_error(nothing: Any) -> None:
    with pytest.raises(ValueError, match="nothing could be compared"):
        compare(nothing, nothing)


class _Returns(nn.Module):
    """Returns a convolution's raw output beside the logits, in whatever ``pack`` makes."""

    def __init__(self, pack: Any) -> None:
        super().__init__()
        self.stem, self.conv, self.norm = nn.Conv2d(3, 16, 3), DynamicConv2d(16, 16, 3), nn.BatchNorm2d(16)
        self.pack = pack
        self.norm.running_var.fill_(4.0)
        self.norm.running_mean.fill_(1.0)

    def forward(self, x: Tensor) -> Any:
        feature = self.conv(self.stem(x))
        return self.pack(self, feature, torch.relu(self.norm(feature)).mean((2, 3)))


def _put_aside(network: _Returns, feature: Tensor, logits: Tensor) -> Tensor:
    network.feature = feature
    return logits


@pytest.mark.parametrize(
    "pack",
    [lambda _, *both: Out(*both), lambda _, *both: Slotted(*both), lambda _, *both: Pair(*both)],
)
def test_a_raw_output_inside_an_object_is_not_folded(pack: Any) -> None:
    network = _Returns(pack).eval()
    frozen = freeze(network, input_size=(3, 16, 16))
    assert frozen.freeze_report.norms == {}
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        for want, have in zip(tensors_in(network(x)), tensors_in(frozen(x)), strict=True):
            assert_close(have, want)


def test_a_raw_output_that_is_put_aside_is_not_folded() -> None:
    network = _Returns(_put_aside).eval()
    assert freeze(network, input_size=(3, 16, 16)).freeze_report.norms == {}


def test_freezing_is_refused_where_nothing_can_be_compared() -> None:
    with pytest.raises(ValueError, match="nothing could be compared: the network's output, str"):
        freeze(_Returns(lambda network, *both: "seen").eval(), input_size=(3, 16, 16))


def test_freezing_is_refused_where_folding_overflows() -> None:
    """A channel that hardly varies: its scale is 316, and 300 * 316 is beyond float16; NaN is a difference."""
    network = nn.Sequential(nn.Conv2d(3, 16, 3), DynamicConv2d(16, 16, 3), nn.BatchNorm2d(16)).eval()
    with torch.no_grad():
        network[1].bias[:, 0] = 300
        network[1].weight[:, 0] *= 0.01
        network[2].running_var[0], network[2].running_mean[0] = 0, 300
    network = network.half()
    with torch.no_grad():
        assert network(torch.randn(2, 3, 8, 8).half()).isfinite().all()
    with pytest.raises(RuntimeError, match=r"by inf of the largest one in tensor 1 of 1"):
        freeze(network, input_size=(3, 8, 8))
