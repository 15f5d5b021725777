"""Routers: from an example to its routing weights."""

from dynaconv.routing.router import (
    PooledRouter,
    Router,
    SigmoidRouter,
    SoftmaxRouter,
    check_experts,
    drop_experts,
    find_router,
    global_average_pool,
)
from dynaconv.routing.scope import Place, Scope, ScopedRouter, scopes_of, share_router
from dynaconv.routing.temperature import TemperatureSchedule, set_temperature, temperatures
from dynaconv.routing.tracing import as_node, is_traced

__all__ = [
    "Place",
    "PooledRouter",
    "Router",
    "Scope",
    "ScopedRouter",
    "SigmoidRouter",
    "SoftmaxRouter",
    "TemperatureSchedule",
    "as_node",
    "check_experts",
    "drop_experts",
    "find_router",
    "global_average_pool",
    "is_traced",
    "scopes_of",
    "set_temperature",
    "share_router",
    "temperatures",
]
