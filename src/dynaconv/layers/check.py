"""Checks that every kind of layer needs."""

from __future__ import annotations

from dynaconv.ops.geometry import as_whole


def check_channels(in_channels: int, out_channels: int, groups: int) -> None:
    """Raise ValueError unless both are positive and ``groups`` divides them."""
    for name, value in (("in_channels", in_channels), ("out_channels", out_channels)):
        if as_whole(value) is None or value < 1:
            raise ValueError(f"{name} is {value!r}; expected a whole number of at least 1")
        if value % groups:
            raise ValueError(f"{name} is {value}, which groups={groups} does not divide")
