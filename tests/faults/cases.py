"""One case: a file, a damage, a number from which everything random follows. ``checkpoint/flip/17`` names it."""

from __future__ import annotations

import functools
from pathlib import Path
from random import Random
from typing import Any

import hypothesis.strategies as st

from faults import worlds
from faults.damages import CONTENT, PLACE, change_tree
from faults.files import FILES, damaged_path
from faults.kinds import Kind
from faults.oracle import Fault, judge

TREE = "tree"


def damages_of(kind: Kind) -> list[str]:
    """The damages that a file can have; where it has values, half of the cases change one of them."""
    return [*kind.damages, *([TREE] * len(kind.damages) if kind.tree else [])]


def cases(name: str) -> st.SearchStrategy[str]:
    """Names of cases of one file."""
    numbers = st.integers(0, 10**6)
    return st.builds(
        lambda damage, number: f"{name}/{damage}/{number}", st.sampled_from(damages_of(FILES[name])), numbers
    )


@functools.cache
def _undamaged(name: str) -> Any:
    root, kind = worlds.case_folder(), FILES[name]
    kind.make(root)
    return kind.read(root)


def run_case(case: str) -> str:
    """What came of it, see :func:`~faults.oracle.judge`.

    Raises:
        Fault: with the name of the case.
    """
    name, damage, _ = case.rsplit("/", 2)
    kind, random = FILES[name], Random(case)
    before, root = _undamaged(name), worlds.case_folder()
    kind.make(root)
    path = damaged_path(kind, root)
    _damage(kind, path, damage, random)
    checked = kind.checked and not (damage == TREE and kind.tree is not None and kind.tree.whole)
    named = (path.name, *kind.named)
    try:
        return judge(lambda: kind.read(root), before, root, checked=checked, named=named, user=damage == "lock")
    except Fault as fault:
        raise Fault(f"{case}: {fault}\n(again: python -m faults.hunt --case '{case}')") from fault.__cause__


def _damage(kind: Kind, path: Path, damage: str, random: Random) -> None:
    if damage == TREE:
        assert kind.tree is not None
        kind.tree.write(path, change_tree(kind.tree.read(path), random))
    else:
        {**CONTENT, **PLACE}[damage](path, random)
