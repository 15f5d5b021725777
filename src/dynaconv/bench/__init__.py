"""Time and memory of a network beside its static twin at its best, the usual form, and timm's own."""

from dynaconv.bench.run import bench
from dynaconv.bench.settings import BenchResult, BenchSettings

__all__ = ["BenchResult", "BenchSettings", "bench"]
