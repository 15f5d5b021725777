"""``NAME=VALUE`` on the command line."""

from __future__ import annotations

import ast
import json
from typing import Any

from dynaconv.errors import UserError


def assignments(option: str, words: list[str] | None) -> dict[str, Any]:
    """What an option that may be repeated assigns; a value is JSON, or a Python literal, or else a word.

    >>> assignments("--arg", ["experts=8", "convs=C1", "static=True", "channels=[8,16]"])
    {'experts': 8, 'convs': 'C1', 'static': True, 'channels': [8, 16]}

    Raises:
        UserError: not of the form ``NAME=VALUE``.
    """
    values = {}
    for word in words or []:
        name, equals, value = word.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name.isidentifier():
            raise UserError(f"{option} {word!r}: expected NAME=VALUE, such as {option} experts=8.")
        values[name] = _value(value)
    return values


def _value(text: str) -> Any:
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError):
            continue
    return text
