"""Every file that the program reads, damaged in every way, and every number that can be typed, at its extremes.

Required of each case: no traceback, exit 0, 1 or 2, an error that names the file or number, nothing wrong in silence,
no hang, bounded memory, nothing half written (:mod:`faults.oracle`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import Phase, given, settings

from dynaconv.errors import UserError
from dynaconv.tasks import TASKS
from faults import oracle
from faults.cases import cases, run_case
from faults.files import FILES
from faults.numbers import COMMANDS, run_number, words
from faults.oracle import Fault, judge

QUICK_FILES, QUICK_NUMBERS = 3, 12  # cases of a file whose share is 1, and of a command
OF_NAME = {name: [word for word in words() if word.startswith(f"{name} ")] for name in [*COMMANDS, *TASKS]}


def damage(name: str, count: float) -> None:
    """Run so many cases of a file; hypothesis chooses them, the same ones every day."""

    @settings(max_examples=max(2, round(count * FILES[name].share)), phases=[Phase.generate])
    @given(cases(name))
    def every(case: str) -> None:
        run_case(case)

    every()


@pytest.mark.parametrize("name", FILES)
def test_damaged_file(name: str) -> None:
    damage(name, QUICK_FILES)


@pytest.mark.parametrize("name", OF_NAME)
def test_extreme_number(name: str) -> None:
    @settings(max_examples=QUICK_NUMBERS, phases=[Phase.generate])
    @given(st.sampled_from(OF_NAME[name]))
    def every(case: str) -> None:
        run_number(case)

    every()


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", FILES)
def test_damaged_file_at_length(name: str, pytestconfig: pytest.Config) -> None:
    whole = pytestconfig.getoption("--faults") - sum(map(len, OF_NAME.values()))
    damage(name, whole / sum(kind.share for kind in FILES.values()))


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", OF_NAME)
def test_every_extreme_number(name: str) -> None:
    faults = []
    for case in OF_NAME[name]:
        try:
            run_number(case)
        except Fault as fault:
            faults.append(str(fault))
    assert not faults, "\n".join(faults)


def refuse(message: str) -> None:
    raise UserError(message)


def break_off() -> None:
    raise KeyError("a key")


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (break_off, "traceback: KeyError"),
        (lambda: refuse("it is damaged"), "refused, but file is not named"),
        (lambda: 2, "wrong in silence"),
        (lambda: time.sleep(60), "traceback: _TooLong"),
        (lambda: bytes(20 << 30), "traceback: MemoryError"),
    ],
)
def test_the_oracle_sees(
    read: Callable[[], object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oracle, "SECONDS", 1)
    with pytest.raises(Fault, match=message):
        judge(read, 1, tmp_path, checked=True, named=("file",))


def test_the_oracle_sees_half_a_file(tmp_path: Path) -> None:
    with pytest.raises(Fault, match="half written"):
        judge((tmp_path / "weights.tmp").touch, None, tmp_path, checked=True, named=("file",))


def test_what_the_oracle_lets_pass(tmp_path: Path) -> None:
    outcomes = [
        judge(read, 1, tmp_path, checked=checked, named=("file",))
        for read, checked in ((lambda: 1, True), (lambda: 2, False), (lambda: refuse("the file is damaged"), True))
    ]
    assert outcomes == ["unchanged", "changed", "refused"]
