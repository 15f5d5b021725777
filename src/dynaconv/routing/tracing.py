"""Symbolic tracing (torch.fx): dynamic layers and routers are leaves of the graph.

torch.fx records each operation of a network with a stand-in for its tensors. A dynamic layer asks its input for shapes
and layouts to choose a strategy, so it cannot run on a stand-in; like torch's own layers it becomes one node of the
graph, which calls the module. By itself the tracer takes modules of ``torch.nn`` alone for leaves.
"""

from __future__ import annotations

from typing import Any

from torch import fx, nn


def is_traced(x: Any, other: Any = None) -> bool:
    """Whether torch.fx is tracing: one of the values stands for a tensor."""
    return isinstance(x, fx.Proxy) or isinstance(other, fx.Proxy)


def as_node(module: nn.Module, *arguments: Any) -> Any:
    """Record the call ``module(*arguments)`` as one node, and return what stands for its result.

    Raises:
        TypeError: ``module`` is what is being traced, so that no module is left that could call it.
    """
    tracer = next(value for value in arguments if isinstance(value, fx.Proxy)).tracer
    path = tracer.path_of_module(module)  # type: ignore[attr-defined]
    if not path:
        raise TypeError(
            f"torch.fx cannot look inside {type(module).__name__}, which is a leaf as torch's own layers are; trace a "
            "network that contains it, such as nn.Sequential(layer)"
        )
    return tracer.create_proxy("call_module", path, arguments, {})
