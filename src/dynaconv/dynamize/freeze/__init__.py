"""A network made ready for inference: what is constant is folded, what is mixed lies as it is read."""

from dynaconv.dynamize.freeze.freeze import FreezeReport, freeze
from dynaconv.dynamize.freeze.layer import FrozenLayer

__all__ = ["FreezeReport", "FrozenLayer", "freeze"]
