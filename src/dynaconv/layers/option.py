"""The options of a convolution as attributes of its layer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any


class Option:
    """``layer.stride`` and its like: read from the layer's geometry; assigned, the geometry follows, validated anew.

    People change torch layers after they are made (``conv.stride = (1, 1)`` for a denser output); an attribute beside
    the geometry would take the assignment and ignore it.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, layer: Any, owner: type | None = None) -> Any:
        return self if layer is None else getattr(layer.geometry, self.name)

    def __set__(self, layer: Any, value: Any) -> None:
        layer.geometry = replace(layer.geometry, **{self.name: value})
