"""The rows of the papers' tables, nearly each in a file of its own: the claim, the settings, the status.

>>> from dynaconv.recipes import load
>>> load("dy_mobilenetv2_050")["settings"]["lr"]
0.05
"""

from __future__ import annotations

from dynaconv.recipes.registry import header, list_recipes, load, resolve

__all__ = ["header", "list_recipes", "load", "resolve"]
