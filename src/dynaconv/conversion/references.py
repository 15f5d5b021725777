"""Which modules are held beside the tree of modules: in a list, a dictionary, a plain attribute, a bound method.

Putting another module into the tree does not change such a reference: whoever goes through it still meets the old one.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

# The tree itself; parameters and buffers; what torch.compile keeps, which a copy drops and compiles anew.
_NO_REFERENCES = {"_modules", "_parameters", "_buffers", "_compiled_call_impl"}


def held_beside_tree(model: nn.Module) -> dict[nn.Module, str]:
    """Return the modules that something other than the tree of modules refers to, each with where that is.

    Looked through are the attributes of every module: lists, tuples, sets and dictionaries in any depth, arguments of
    ``functools.partial``, bound methods, variables that a function keeps, and modules outside the tree with all that
    they hold. Objects of other classes are not looked into.
    """
    tree = set(model.modules())
    found: dict[nn.Module, str] = {}
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute not in _NO_REFERENCES:
                for held in _modules_in(value, tree, set()):
                    found.setdefault(held, f"attribute {attribute!r} of {name or 'the network'}")
    return found


def _modules_in(value: Any, tree: set[nn.Module], seen: set[int]) -> Iterator[nn.Module]:
    """The modules of the tree that ``value`` leads to without going through the tree."""
    if id(value) in seen:
        return
    if isinstance(value, nn.Module) and value in tree:
        yield value
        return
    parts = _parts(value)
    if parts:
        seen.add(id(value))
        for part in parts:
            yield from _modules_in(part, tree, seen)


def _parts(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(value)
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, types.MethodType):
        return [value.__self__]
    if isinstance(value, types.FunctionType):
        return [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
    if isinstance(value, nn.Module):
        own = [part for name, part in vars(value).items() if name not in _NO_REFERENCES]
        return [*value.children(), *own]
    return []


def _is_filled(cell: types.CellType) -> bool:
    """Whether the variable has a value; one that is assigned later, or was deleted, has none."""
    try:
        cell.cell_contents  # noqa: B018 - reading it is the question
    except ValueError:
        return False
    return True
