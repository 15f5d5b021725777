"""``NAME=VALUE``, as every command reads it."""

from __future__ import annotations

import pytest

from dynaconv.cli.options import assignments
from dynaconv.errors import UserError


def test_values_are_json_or_python_or_words() -> None:
    words = [
        "a=1",
        "b=0.5",
        "c=True",
        "d=false",
        "e=C1,C3",
        "f=('C1',)",
        "g=[8, 16]",
        "h=null",
        "i=None",
        "j=a=b",
        "k=",
    ]
    assert assignments("--arg", words) == {
        "a": 1,
        "b": 0.5,
        "c": True,
        "d": False,
        "e": "C1,C3",
        "f": ("C1",),
        "g": [8, 16],
        "h": None,
        "i": None,
        "j": "a=b",
        "k": "",
    }


def test_a_dash_is_an_underscore() -> None:
    assert assignments("--set", ["decay-rate=0.5"]) == {"decay_rate": 0.5}


def test_nothing_given() -> None:
    assert assignments("--arg", None) == {}


@pytest.mark.parametrize("word", ["experts", "=8", "2x=3", ""])
def test_mistakes_name_the_option_and_show_how(word: str) -> None:
    with pytest.raises(UserError, match=r"--set .*: expected NAME=VALUE, such as --set experts=8"):
        assignments("--set", [word])
