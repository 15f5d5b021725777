"""What is written down about one module while the model runs, before any rule weighs it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Ledger:
    """Counts of one row of the report; see :class:`dynaconv.cost.LayerCost` for those of the same name.

    ``routing`` holds multiply-adds alone. The elementary operations stand by kind, as rules weigh them differently.
    """

    name: str
    kind: str
    calls: int = 0
    output_shape: tuple[int, ...] | None = None
    parameters: int = 0
    experts: int | None = None
    kernel: int = 0
    mixing: int = 0
    routing: int = 0
    bias_mixing: int = 0
    elementary: Counter[str] = field(default_factory=Counter)
    elementary_in_router: Counter[str] = field(default_factory=Counter)

    def tally(self, kind: str, number: float, *, routing: bool) -> None:
        """Add elementary operations of one kind."""
        (self.elementary_in_router if routing else self.elementary)[kind] += int(number)
