"""Temperature: setting it, and annealing it in training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from dynaconv.errors import suggest

# The softmax of logits of any sensible size is a hard choice long before this; far below it logits overflow to NaN.
LEAST_TEMPERATURE = 1e-6


def check_temperature(temperature: float) -> float:
    """Return ``temperature`` as a float; raise ValueError unless it is finite and at least ``LEAST_TEMPERATURE``."""
    if not LEAST_TEMPERATURE <= temperature < float("inf"):
        raise ValueError(
            f"temperature is {temperature!r}; expected a number above 0, at least {LEAST_TEMPERATURE:g} "
            "(the paper anneals 30 to 1)"
        )
    return float(temperature)


def temperatures(model: nn.Module) -> Iterator[Tensor]:
    """The temperature buffer of every softmax router in ``model``."""
    for module in model.modules():
        temperature = getattr(module, "temperature", None)
        if getattr(module, "is_router", False) and isinstance(temperature, Tensor):
            yield temperature


def set_temperature(model: nn.Module, temperature: float) -> int:
    """Set the temperature of every softmax router; return how many there are."""
    value = check_temperature(temperature)
    count = 0
    for buffer in temperatures(model):
        buffer.fill_(value)
        count += 1
    return count


SCHEDULES = ("linear", "cosine", "exponential", "constant")
"""The ways from the first temperature to the last one."""


class TemperatureSchedule:
    """Anneal the temperature of a model's softmax routers from ``start`` to ``end``.

    Formulas, after n calls of :meth:`step`, with ``s = min(n / steps, 1)``, where ``steps`` is ``epochs``, or
    ``epochs * steps_per_epoch``:

    - ``linear``: ``start + (end - start) * s``. The default, 30 to 1 over the first 10 epochs, is the paper's (Chen et
      al. 2020, section 4.2; it does not say whether it steps by epoch or by iteration, both are offered).
    - ``cosine``: ``end + (start - end) * (1 + cos(pi s)) / 2``, the half wave of Loshchilov and Hutter 2017 (SGDR, eq.
      5): slow at both ends.
    - ``exponential``: ``start * (end / start) ** s``, a constant factor for every step: most of the fall at first.
    - ``constant``: ``start`` throughout; ``end`` and ``epochs`` have no effect (the rows of the paper's Table 6).

    The model is at ``start`` once the schedule is made. A model without softmax routers is left alone.

    Args:
        model: the network; routers added later are found too, at the next step.
        start, end: temperatures above 0.
        epochs: length of the annealing; 0 means ``end`` from the beginning.
        steps_per_epoch: None to call :meth:`step` once an epoch; a number of optimizer steps to call it after each.
        kind: one of :data:`SCHEDULES`.
    """

    def __init__(
        self,
        model: nn.Module,
        start: float = 30.0,
        end: float = 1.0,
        epochs: int = 10,
        steps_per_epoch: int | None = None,
        kind: str = "linear",
    ) -> None:
        if kind not in SCHEDULES:
            raise ValueError(f"kind is {kind!r}. {suggest(str(kind), SCHEDULES)}")
        self.start, self.end = check_temperature(start), check_temperature(end)
        if epochs < 0:
            raise ValueError(f"epochs is {epochs!r}; expected at least 0")
        if steps_per_epoch is not None and steps_per_epoch < 1:
            raise ValueError(f"steps_per_epoch is {steps_per_epoch!r}; expected at least 1, or None to step by epoch")
        self.model, self.kind = model, kind
        self.steps = epochs * (steps_per_epoch or 1)
        self.position = 0
        self._apply()

    @property
    def temperature(self) -> float:
        """The temperature at the present position."""
        share = 1.0 if self.steps == 0 else min(self.position / self.steps, 1.0)
        if self.kind == "cosine":
            return self.end + (self.start - self.end) * (1.0 + math.cos(math.pi * share)) / 2.0
        if self.kind == "exponential":
            return float(self.start * (self.end / self.start) ** share)
        if self.kind == "constant":
            return self.start
        return self.start + (self.end - self.start) * share

    def step(self) -> float:
        """Go on by one step; return the new temperature."""
        self.position += 1
        return self._apply()

    def _apply(self) -> float:
        set_temperature(self.model, self.temperature)
        return self.temperature

    def state_dict(self) -> dict[str, Any]:
        """Position and settings, as plain numbers."""
        numbers = {"position": self.position, "steps": self.steps, "start": self.start, "end": self.end}
        return numbers if self.kind == "linear" else {**numbers, "kind": self.kind}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved position, with the saved settings."""
        missing = {"position", "steps", "start", "end"} - set(state)
        if missing:
            raise ValueError(f"temperature schedule state lacks {sorted(missing)}; it has {sorted(state)}")
        kind = state.get("kind", "linear")
        if kind not in SCHEDULES:
            raise ValueError(f"the saved schedule is of the kind {kind!r}; known: {', '.join(SCHEDULES)}")
        self.kind = kind
        self.position, self.steps = int(state["position"]), int(state["steps"])
        self.start, self.end = check_temperature(state["start"]), check_temperature(state["end"])
        self._apply()
