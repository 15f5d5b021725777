"""Dynamic convolution: layers whose kernels are mixed anew for every example."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dynaconv.public import *  # noqa: F403

__version__ = "0.2.0"

# Names whose rooms need more than torch.
_FROM_ROOMS = {"from_timm": "dynaconv.models", "to_timm": "dynaconv.models"}


def __getattr__(name: str) -> Any:
    """Load the names of :mod:`dynaconv.public` when they are first used.

    Until then not even torch is imported: the command's help and completion take a moment, not seconds.
    """
    if name in _FROM_ROOMS:
        return getattr(importlib.import_module(_FROM_ROOMS[name]), name)
    if not name.startswith("_") and find_spec(f"dynaconv.{name}") is not None:
        # A room. It may be one that `public` is importing just now, so it does not wait for it.
        return importlib.import_module(f"dynaconv.{name}")
    if not name.startswith("__") or name == "__all__":
        public = importlib.import_module("dynaconv.public")
        if name == "__all__":
            return public.__all__
        if name in public.__all__:
            return getattr(public, name)
    raise AttributeError(f"module 'dynaconv' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__"), *_FROM_ROOMS})
