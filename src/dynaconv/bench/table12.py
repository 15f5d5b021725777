"""Table 12 of Chen et al. 2020 beside ours: running time of MobileNetV2 and DY-MobileNetV2, one thread, batch 1."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from dynaconv.bench.run import bench
from dynaconv.bench.settings import BenchSettings

# Width -> milliseconds of the static and the dynamic network on one core of a Xeon E5-2650 v3 (2.30 GHz).
PUBLISHED: dict[str, tuple[float, float]] = {
    "100": (127.9, 141.2),
    "075": (99.5, 110.5),
    "050": (69.6, 77.4),
    "035": (61.1, 67.4),
}

HEADER = ("MobileNetV2", "paper static", "dynamic", "ratio", "ours static", "dynamic", "ratio")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One width: published and measured milliseconds, and their ratios."""

    width: str
    paper_static_ms: float
    paper_dynamic_ms: float
    paper_ratio: float
    static_ms: float
    dynamic_ms: float
    ratio: float
    environment: dict[str, Any]

    def plain(self) -> dict[str, Any]:
        return asdict(self)

    def cells(self) -> list[str]:
        """The figures of :data:`HEADER`, in milliseconds."""
        paper = [f"{self.paper_static_ms:.1f} ms", f"{self.paper_dynamic_ms:.1f}", f"{self.paper_ratio:.2f}"]
        ours = [f"{self.static_ms:.1f} ms", f"{self.dynamic_ms:.1f}", f"{self.ratio:.2f}"]
        return [f"x{self.width}", *paper, *ours]


def table12(*, rounds: int = 20, compile: bool = False, size: int | None = None) -> list[Row]:
    """Measure the four widths; our static network is the fastest of its forms and the dynamic one is frozen."""
    rows = []
    for width, (static, dynamic) in PUBLISHED.items():
        result = bench(
            BenchSettings(
                model=f"dy_mobilenetv2_{width}", rounds=rounds, compile=compile, size=size, threads=1, memory=False
            )
        )
        rows.append(
            Row(
                width=f"{int(width) / 100:g}",
                paper_static_ms=static,
                paper_dynamic_ms=dynamic,
                paper_ratio=dynamic / static,
                static_ms=result.static_ms,
                dynamic_ms=result.ours_ms,
                ratio=result.ratio_to_static,
                environment=result.environment,
            )
        )
    return rows
