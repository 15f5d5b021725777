"""Networks for inference: constants are folded, and banks have the layout in which they are read."""

from dynaconv.inference.archive import load, save
from dynaconv.inference.compiled import compile_options
from dynaconv.inference.freezing import FreezeReport, freeze
from dynaconv.inference.layer import FrozenLayer

__all__ = ["FreezeReport", "FrozenLayer", "compile_options", "freeze", "load", "save"]
