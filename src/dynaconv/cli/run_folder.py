"""Where a run goes that was not told where."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from dynaconv.train.build import ModelSpec
from dynaconv.train.output import RECIPE
from dynaconv.train.recipe import Recipe


def default_folder(recipe: Recipe, called: str | None = None, base: dict[str, Any] | None = None) -> Path:
    """``runs/NAME-CHOICES-DATA-seedN``, so that a network, its static twin and its variants do not meet.

    NAME is the recipe's, or else the network's; CHOICES is what was chosen about the network beyond that name.

    Args:
        recipe: the run, resolved.
        called: the recipe's name or file, if there was one. Another run's ``run.json`` names nothing.
        base: what that recipe says about the network.
    """
    named = called is not None and Path(called).name != RECIPE
    before = ModelSpec(**base) if named and base else ModelSpec(name=recipe.model.name)
    name = Path(called).stem if named and called is not None else recipe.model.name
    parts = [name, *_choices(before, recipe.model), Path(recipe.data or "").name, f"seed{recipe.settings.seed}"]
    return Path("runs") / "-".join(part for part in parts if part)


def _choices(before: ModelSpec, after: ModelSpec) -> list[str]:
    old, new = ({**spec.model_dump(exclude={"args"}), **spec.args} for spec in (before, after))
    return [_words(name, value) for name, value in new.items() if value is not None and old.get(name) != value]


def _words(name: str, value: Any) -> str:
    """As part of a file's name.

    >>> [_words("static", True), _words("experts", 8), _words("method", "dynamic"), _words("channels", [8, 16])]
    ['static', 'experts8', 'dynamic', 'channels8_16']
    """
    if value is True:
        return name
    words = "_".join(re.findall(r"[\w.]+", str(value)))
    return words if name in ("name", "method") else name + words
