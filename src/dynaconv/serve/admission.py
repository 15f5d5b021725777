"""How much the service holds at a time: beyond that, requests are refused before their bodies are read."""

from __future__ import annotations

import math
from typing import Any

from typing_extensions import Self

from dynaconv.serve.reading import Refused


class Gate:
    """Counts what is inside the service; from the event loop alone, so it needs no lock.

    Args:
        most: images at a time.
        most_bytes: of the bodies that are read, or wait to be decoded, at a time.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self.most, self.inside = most, 0
        self.most_bytes, self.bytes = most_bytes, 0
        self._seconds = 0.1  # for one image, a running mean

    def learn(self, images: int, seconds: float) -> None:
        """A batch of that many images took so long."""
        self._seconds += 0.1 * (seconds / images - self._seconds)

    @property
    def seconds_until_room(self) -> int:
        """About how long the images that are inside will take; at least 1."""
        return max(1, math.ceil(self.inside * self._seconds))


class Places:
    """The places of one request in the gate; a context that gives them back."""

    def __init__(self, gate: Gate) -> None:
        self._gate, self.taken, self.bytes = gate, 0, 0

    def hold(self, size: int) -> None:
        """Take room for a body of that many bytes, until :meth:`drop`.

        Raises:
            Refused: as for :meth:`take`.
        """
        if self._gate.bytes + size > self._gate.most_bytes:
            raise self._full(f"{self._gate.bytes / 1e6:.0f} MB of bodies")
        self._gate.bytes += size
        self.bytes = size

    def drop(self) -> None:
        """The body is no longer there."""
        self._gate.bytes -= self.bytes
        self.bytes = 0

    def take(self, images: int) -> None:
        """Take places for so many images in all.

        Raises:
            Refused: 429, with the seconds after which to try again.
        """
        more = images - self.taken
        if self._gate.inside + more > self._gate.most:
            raise self._full(f"{self._gate.inside} of {self._gate.most} images")
        self._gate.inside += more
        self.taken = images

    def _full(self, what: str) -> Refused:
        later = {"Retry-After": str(self._gate.seconds_until_room)}
        return Refused(429, f"the service is full ({what}); try again later", later)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self._gate.inside -= self.taken
        self.drop()
