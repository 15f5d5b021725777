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
from dynaconv.routing.scope import Scope, ScopedRouter, share_router
from dynaconv.routing.temperature import TemperatureSchedule, set_temperature, temperatures

__all__ = [
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
    "set_temperature",
    "share_router",
    "temperatures",
]
