"""Compiled frozen networks: a router gets the sums over its input from the layer that wrote it, if it is unchanged."""

from __future__ import annotations

import operator
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import dynaconv
from dynaconv import DynamicConv2d, freeze
from dynaconv.inference import compile_options
from dynaconv.inference.compiled import hand_on_sums
from dynaconv.kernels import cpu
from tolerances import assert_close

pytestmark = pytest.mark.skipif(cpu.why_not() is not None, reason=f"no kernels of our own here: {cpu.why_not()}")

LAYER = torch.ops.dynaconv.frozen_layer.default


class Network(nn.Module):
    """A layer reads: another's output; the same again; a sum; and an output that was changed in place."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DynamicConv2d(4, 4, 3, padding=1) for _ in range(5))

    def forward(self, x: Tensor) -> Tensor:
        first, second, third, fourth, fifth = self.layers
        y = first(x)
        z = second(y) + third(y)
        z = fourth(z)
        z.add_(1)
        return fifth(z)


def frozen_network() -> nn.Module:
    frozen = freeze(Network(), input_size=(4, 8, 8))
    assert str(frozen.freeze_report).startswith("5 dynamic layers")
    return frozen


def test_sums_are_handed_on_where_the_input_is_a_layer_s_output() -> None:
    """In the graph as inductor gets it: the arguments of each layer, by hand."""
    graph = fx.Graph()
    x, weights = graph.placeholder("x"), graph.placeholder("weights")

    def layer(x: fx.Node, routing: fx.Node | None = None) -> fx.Node:
        call = graph.call_function(LAYER, (x, None, routing, *(None,) * 8))
        return graph.call_function(operator.getitem, (call, 0))

    first = layer(x)
    second, routed = layer(first), layer(first, weights)
    changed = layer(graph.call_function(torch.ops.aten.add.Tensor, (second, 1)))
    graph.output((routed, changed))
    hand_on_sums(graph)
    graph.lint()
    sums = [node.args[1] for node in graph.find_nodes(op="call_function", target=LAYER)]
    assert [each is not None for each in sums] == [False, True, False, False]
    assert sums[1].args == (first.args[0], 1)


@pytest.mark.slow
def test_a_compiled_network_computes_the_same_with_fewer_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def note(graph: fx.Graph) -> None:
        hand_on_sums(graph)
        seen.extend(node.args[1] is not None for node in graph.find_nodes(op="call_function", target=LAYER))

    monkeypatch.setattr(dynaconv.inference.compiled, "hand_on_sums", note)
    # A graph that an earlier run compiled would be taken from the cache, and not noted.
    monkeypatch.setattr(torch.compiler.config, "force_disable_caches", True)
    frozen, x = frozen_network(), torch.randn(2, 4, 8, 8).to(memory_format=torch.channels_last)
    options: dict[str, Any] = compile_options()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, while it compiles
        assert_close(torch.compile(frozen, **options)(x), frozen(x), scale=10)
    torch._dynamo.reset()
    assert seen == [False, True, True, False, False]


def test_a_torch_without_that_option_compiles_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynaconv.inference.compiled, "compiler_pass", lambda change, version: {})
    assert compile_options() == {"dynamic": False, "options": {"freezing": True}}
