"""Symbolic tracing (torch.fx): dynamic layers and routers are leaves of the graph.

torch.fx runs a network on proxies in place of tensors and records each operation. A dynamic layer needs the shape and
layout of its input to choose a strategy, so it cannot run on a proxy. Like torch's layers it becomes one node of the
graph that calls the module. By default the tracer treats only modules of ``torch.nn`` as leaves.
"""

from __future__ import annotations

from typing import Any

from torch import fx, nn


def is_traced(x: Any, other: Any = None) -> bool:
    """Whether torch.fx is tracing: one of the values is a proxy."""
    return isinstance(x, fx.Proxy) or isinstance(other, fx.Proxy)


def as_node(module: nn.Module, *arguments: Any) -> Any:
    """Record the call ``module(*arguments)`` as one node, and return the proxy of its result.

    Raises:
        TypeError: ``module`` is itself the root of the trace, so the graph has no module that could call it.
    """
    tracer = next(value for value in arguments if isinstance(value, fx.Proxy)).tracer
    path = tracer.path_of_module(module)  # type: ignore[attr-defined]
    if not path:
        raise TypeError(
            f"torch.fx cannot look inside {type(module).__name__}, which is a leaf as torch's own layers are; trace a "
            "network that contains it, such as nn.Sequential(layer)"
        )
    return tracer.create_proxy("call_module", path, arguments, {})
