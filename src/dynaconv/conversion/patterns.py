"""Which layers a user means by ``include`` and ``exclude``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

from torch import nn

from dynaconv.errors import suggest

Pattern = str | type | Callable[[str, nn.Module], bool]
Patterns = Pattern | Sequence[Pattern] | None


def as_list(patterns: Patterns) -> list[Pattern]:
    """One pattern, several, or none, as a list."""
    if patterns is None:
        return []
    if isinstance(patterns, str) or callable(patterns):
        return [patterns]
    return list(patterns)


def matches(pattern: Pattern, name: str, module: nn.Module) -> bool:
    """A string is a shell pattern over the layer's name; a class takes its instances; a callable decides itself."""
    if isinstance(pattern, str):
        return fnmatchcase(name, pattern)
    if isinstance(pattern, type):
        return isinstance(module, pattern)
    return bool(pattern(name, module))


def check_used(argument: str, patterns: Iterable[Pattern], layers: Sequence[tuple[str, nn.Module]]) -> None:
    """Raise ValueError for a pattern that names no layer: a typing error must not pass for a choice."""
    for pattern in patterns:
        if not isinstance(pattern, str) and not callable(pattern):
            raise TypeError(
                f"{argument} has {pattern!r}; expected a name pattern, a class or a callable (name, module)"
            )
        if not any(matches(pattern, name, module) for name, module in layers):
            near = suggest(pattern, [name for name, _ in layers]) if isinstance(pattern, str) else ""
            raise ValueError(
                f"{argument} has {pattern!r}, which matches no convolution or linear layer. {near}".strip()
            )
