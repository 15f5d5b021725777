"""Recipes by name. A file in ``rows/`` is found by lying there; nothing else lists it."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from importlib import import_module
from inspect import cleandoc
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from dynaconv.errors import UserError, suggest

if TYPE_CHECKING:
    from dynaconv.train.recipe import Recipe

ROWS = "dynaconv.recipes.rows"


def list_recipes(task: str | None = None) -> list[str]:
    """The names of all recipes, or of those for one task, in alphabetical order."""
    found = ((name, recipe.get("task", "classification")) for name, (recipe, _) in _found().items())
    return sorted(name for name, of in found if task in (None, of))


def load(name: str) -> dict[str, Any]:
    """The recipe's dictionary, before anything of the command line is laid over it; the caller's own copy.

    Raises:
        UserError: no such recipe; the nearest ones are named.
    """
    return deepcopy(_entry(name)[0])


def resolve(name: str) -> Recipe:
    """The recipe as it runs when nothing is overridden, validated.

    Raises:
        UserError: no such recipe.
    """
    from dynaconv.train.recipe import resolve_recipe

    return resolve_recipe(load(name), {}, {}, {})


def header(name: str) -> str:
    """The docstring of the recipe's file: published result, setting, cost, status.

    Raises:
        UserError: no such recipe.
    """
    return _entry(name)[1]


def _entry(name: str) -> tuple[dict[str, Any], str]:
    found = _found()
    if name not in found:
        raise UserError(f"There is no recipe {name!r}, and no file of that name. {suggest(name, found)}")
    return found[name]


@cache
def _found() -> dict[str, tuple[dict[str, Any], str]]:
    """Every recipe with the header of its file.

    A file's ``RECIPES`` maps a suffix to a recipe; its name is the file's, with the suffix if it has one.
    """
    found: dict[str, tuple[dict[str, Any], str]] = {}
    for _, stem, _ in iter_modules(import_module(ROWS).__path__):
        module = import_module(f"{ROWS}.{stem}")
        for suffix, recipe in module.RECIPES.items():
            name = f"{stem}_{suffix}" if suffix else stem
            assert name not in found, f"two files call a recipe {name}"
            found[name] = recipe, cleandoc(module.__doc__ or "")
    return found
