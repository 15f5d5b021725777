"""What the routers of a trained network do: statistics, figures, and a page to look at."""

from dynaconv.analysis.routes.inspect import inspect_run, inspect_trained, write_inspection
from dynaconv.analysis.routes.report import Inspection, InspectSettings

__all__ = ["InspectSettings", "Inspection", "inspect_run", "inspect_trained", "write_inspection"]
