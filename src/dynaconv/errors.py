"""Messages for a user's mistake: what came, what was expected, what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggest(word: str, known: Iterable[str], limit: int = 12) -> str:
    """Answer a sentence that names the known words nearest to ``word``.

    >>> suggest("sofmax", ["softmax", "sigmoid"])
    "Did you mean 'softmax'?"
    >>> suggest("x", ["softmax", "sigmoid"])
    'Known: sigmoid, softmax.'
    """
    words = sorted(set(known))
    near = difflib.get_close_matches(word, words, n=3, cutoff=0.6)
    if near:
        return "Did you mean " + " or ".join(repr(name) for name in near) + "?"
    shown = ", ".join(words[:limit])
    more = f" and {len(words) - limit} more" if len(words) > limit else ""
    return f"Known: {shown}{more}."
