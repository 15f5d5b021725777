"""Routers: from an example to its routing weights."""

from dynaconv.routing.router import (
    PooledRouter,
    Router,
    SigmoidRouter,
    SoftmaxRouter,
    check_experts,
    drop_experts,
    global_average_pool,
)
from dynaconv.routing.scope import Place, Scope, ScopedRouter, scopes_of, share_router
from dynaconv.routing.temperature import TemperatureSchedule, set_temperature, temperatures

__all__ = [
    "Place",
    "PooledRouter",
    "Router",
    "Scope",
    "ScopedRouter",
    "SigmoidRouter",
    "SoftmaxRouter",
    "TemperatureSchedule",
    "check_experts",
    "drop_experts",
    "global_average_pool",
    "scopes_of",
    "set_temperature",
    "share_router",
    "temperatures",
]
