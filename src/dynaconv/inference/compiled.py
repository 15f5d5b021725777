"""Frozen networks under torch.compile: every layer hands the sums over its output to the next one's router.

An uncompiled layer remembers the sums of the map that it wrote last (:mod:`~dynaconv.inference.channel_sums`), and
holds a map's version against them. A graph has neither; but in it every operation returns a new tensor, so that "the
input is that layer's output, unchanged" can be read from the graph itself.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from dynaconv.torch_private import compiler_pass


def compile_options() -> dict[str, Any]:
    """The arguments with which ``freeze(compile=True)`` compiles, for a network that was loaded.

    ``network.compile(**dynaconv.inference.compile_options())``. By ``network.compile()`` outputs are the same, and
    every router reads its map once more.
    """
    options = {"freezing": True, **compiler_pass(hand_on_sums, "dynaconv.hand_on_sums 1")}
    return {"dynamic": False, "options": options}


def hand_on_sums(graph: fx.Graph) -> None:
    """Give ``dynaconv::frozen_layer`` the sums of its input where the input is another such layer's output."""
    layer = torch.ops.dynaconv.frozen_layer.default
    for node in graph.find_nodes(op="call_function", target=layer):
        x, sums, routing = node.args[:3]
        if sums is None and routing is None and _is_output_of(x, layer):
            with graph.inserting_after(x):
                node.update_arg(1, graph.call_function(operator.getitem, (x.args[0], 1)))


def _is_output_of(node: Any, target: Any) -> bool:
    is_first = isinstance(node, fx.Node) and node.target is operator.getitem and node.args[1] == 0
    return bool(is_first and node.args[0].target is target)
