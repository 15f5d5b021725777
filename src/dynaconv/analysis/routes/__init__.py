"""What the routers of a trained network do: statistics, figures, and a page to look at."""

from dynaconv.analysis.routes.inspect import Inspection, InspectSettings, inspect_run
from dynaconv.analysis.routes.write import write_inspection

__all__ = ["InspectSettings", "Inspection", "inspect_run", "write_inspection"]
