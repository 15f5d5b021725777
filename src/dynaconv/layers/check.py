"""Checks that every kind of layer needs."""

from __future__ import annotations


def check_channels(in_channels: int, out_channels: int, groups: int) -> None:
    """Raise ValueError unless both are positive and ``groups`` divides them."""
    for name, value in (("in_channels", in_channels), ("out_channels", out_channels)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} is {value!r}; expected a whole number of at least 1")
        if value % groups:
            raise ValueError(f"{name} is {value}, which groups={groups} does not divide")
