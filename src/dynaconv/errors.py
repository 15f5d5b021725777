"""Messages for a user's mistake: what came, what was expected, what to do next."""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any


class UserError(ValueError):
    """A mistake in what the user gave; the command line prints the message alone and exits 2."""


class RunError(RuntimeError):
    """A run that cannot go on though nothing was typed wrongly (disk full, loss not finite); printed alone, exit 1."""

    exit_code = 1


DISK = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS))
"""What can happen to a file that was named rightly."""


def cannot_write(what: object, error: OSError) -> UserError | RunError:
    """The error to raise for a file that cannot be written: the disk is at fault (exit 1), or the name is (exit 2)."""
    if error.errno in DISK:
        return RunError(f"Cannot write {what}: {os.strerror(error.errno)}. Make room, and repeat the command.")
    return UserError(f"Cannot write {what}: {error.strerror or error}.")


@contextmanager
def blame_input() -> Iterator[None]:
    """Turn the errors that the library raises for bad arguments into :class:`UserError`.

    For the few lines that use a user's input directly (build the model, open the data, validate the settings), so that
    a ``ValueError`` from anywhere else still shows its traceback.
    """
    try:
        yield
    except (UserError, RunError):
        raise
    except (ValueError, TypeError, OSError) as error:
        raise UserError(str(error)) from error


def suggest(word: str, known: Iterable[str], limit: int = 12) -> str:
    """Return a sentence that names the known words nearest to ``word``.

    >>> suggest("sofmax", ["softmax", "sigmoid"])
    "Did you mean 'softmax'?"
    >>> suggest("x", ["softmax", "sigmoid"])
    'Known: sigmoid, softmax.'
    """
    words = sorted(set(known))
    near = difflib.get_close_matches(str(word), words, n=3, cutoff=0.6)
    if near:
        return "Did you mean " + " or ".join(repr(name) for name in near) + "?"
    shown = ", ".join(words[:limit])
    more = f" and {len(words) - limit} more" if len(words) > limit else ""
    return f"Known: {shown}{more}."


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Every name whose value differs, with both values; a name that is absent counts as None.

    >>> differences({"lr": 0.1, "epochs": 5}, {"lr": 0.2, "epochs": 5})
    ['lr is 0.1 there and 0.2 here']
    """
    return [
        f"{name} is {there.get(name)!r} there and {here.get(name)!r} here"
        for name in dict.fromkeys([*here, *there])
        if there.get(name) != here.get(name)
    ]


def shortened(sentences: Sequence[str], most: int = 6) -> str:
    """The first sentences in one line, and how many more there are.

    >>> shortened(["a is 1", "b is 2", "c is 3"], most=2)
    'a is 1; b is 2; and 1 more'
    """
    more = f"; and {len(sentences) - most} more" if len(sentences) > most else ""
    return "; ".join(sentences[:most]) + more
