"""The defaults that the help shows, kept in ``defaults.json`` so that ``--help`` does not import torch.

A test compares them with the settings. After a change of a default write the file again:
``python -m dynaconv.cli.defaults``.
"""

from __future__ import annotations

import importlib
import json
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from dynaconv.cli import COMMANDS, load


def default_of(place: str, name: str) -> Any:
    """A setting's default.

    Args:
        place: ``module:object``, a class of settings or an instance of one.
        name: of the setting.
    """
    kept = _kept().get(place, {})
    return kept[name] if name in kept else find_default(place, name)


def find_default(place: str, name: str) -> Any:
    """The same, from the settings: of the field of a class, or the value in an instance; imports their module."""
    module, _, attribute = place.partition(":")
    settings = getattr(importlib.import_module(module), attribute)
    if isinstance(settings, type):
        return getattr(settings, "model_fields")[name].default  # noqa: B009 - pydantic's, unknown to type
    return getattr(settings, name)


def find_defaults() -> dict[str, dict[str, Any]]:
    """Every default that the help of a command shows, by place and name."""
    found: dict[str, dict[str, Any]] = {}
    for command in COMMANDS:
        for name, place in getattr(load(command), "defaults", {}).items():
            if place is not None:
                found.setdefault(place, {})[name] = find_default(place, name)
    return {place: dict(sorted(values.items())) for place, values in sorted(found.items())}


@lru_cache
def _kept() -> dict[str, dict[str, Any]]:
    kept: dict[str, dict[str, Any]] = json.loads(
        (resources.files("dynaconv.cli") / "defaults.json").read_text(encoding="utf-8")
    )
    return kept


if __name__ == "__main__":
    Path(__file__).with_name("defaults.json").write_text(json.dumps(find_defaults(), indent=1) + "\n", encoding="utf-8")
