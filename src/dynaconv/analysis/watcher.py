"""Who watches a comparison."""

from __future__ import annotations

from typing import Protocol

from dynaconv.analysis.run import RunResult
from dynaconv.train.progress import Progress


class Watcher(Protocol):
    """Told what happens; must not change anything."""

    def measuring(self, what: str) -> None:
        """A measurement begins."""
        ...

    def start(self, runs: int, missing: int, work: float) -> None:
        """The training begins: so many runs in all, so many to be done, with this much work (static's run is 1)."""
        ...

    def run(self, label: str, seed: int, work: float) -> Progress | None:
        """A run begins; the answer is told of its steps."""
        ...

    def finished(self, label: str, result: RunResult) -> None:
        """A run is done and its result kept."""
        ...

    def close(self) -> None:
        """The training is over, by itself or by an error."""
        ...


class Nobody:
    """Nobody watches."""

    def measuring(self, what: str) -> None: ...

    def start(self, runs: int, missing: int, work: float) -> None: ...

    def run(self, label: str, seed: int, work: float) -> Progress | None:
        return None

    def finished(self, label: str, result: RunResult) -> None: ...

    def close(self) -> None: ...
