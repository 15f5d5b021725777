"""The report of a conversion: for every layer whether it was replaced, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dynaconv.notebook import html_table


@dataclass(frozen=True, kw_only=True)
class LayerReport:
    """One layer of the static network.

    Attributes:
        name: its name in the network.
        kind: its class.
        replaced: whether it is dynamic now.
        reason: why, or why not.
        router: the name of the module whose router it uses: its own name, or that of the block; "" if not replaced.
    """

    name: str
    kind: str
    replaced: bool
    reason: str
    router: str = ""


@dataclass(frozen=True)
class DynamizeReport:
    """Every convolution and linear layer of a network, replaced or left, with the reason; ``print`` shows a table."""

    layers: tuple[LayerReport, ...]

    @property
    def replaced(self) -> tuple[LayerReport, ...]:
        return tuple(layer for layer in self.layers if layer.replaced)

    @property
    def left(self) -> tuple[LayerReport, ...]:
        return tuple(layer for layer in self.layers if not layer.replaced)

    def __iter__(self) -> Iterator[LayerReport]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def _repr_html_(self) -> str:
        """The table, for notebooks."""
        return html_table(("layer", "kind", "now", "why"), self._rows(), notes=[self._summary()])

    def _rows(self) -> list[tuple[str, str, str, str]]:
        return [
            (layer.name, layer.kind, "dynamic" if layer.replaced else "left", layer.reason) for layer in self.layers
        ]

    def _summary(self) -> str:
        return f"{len(self.replaced)} layers dynamic, {len(self.left)} left"

    def __str__(self) -> str:
        rows = self._rows()
        widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
        lines = ["  ".join((*map(str.ljust, row[:3], widths), row[3])) for row in rows]
        return "\n".join([*lines, self._summary()])
