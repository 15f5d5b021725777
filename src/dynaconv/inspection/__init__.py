"""What the routers of a network return: recording it, and replacing it."""

from dynaconv.inspection.intervention import INTERVENTIONS, intervene
from dynaconv.inspection.observing import RouterPlace, routers_of
from dynaconv.inspection.parquet import RecordedRouter, RoutingRows, read_routing
from dynaconv.inspection.recording import RoutingRecorder, record_routing

__all__ = [
    "INTERVENTIONS",
    "RecordedRouter",
    "RouterPlace",
    "RoutingRecorder",
    "RoutingRows",
    "intervene",
    "read_routing",
    "record_routing",
    "routers_of",
]
