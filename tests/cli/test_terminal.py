"""Tables fit the terminal, and are whole when piped."""

from __future__ import annotations

import pytest

from dynaconv.cli import main, terminal
from dynaconv.cli.terminal import sentences, table

HEADER = ["name", "MAdds", "what\nit is"]
ROWS = [["a", "1.00 G", "some words that say at length what it is"], ["bcd", "2", "short"]]


def longest(text: str) -> int:
    return max(map(len, text.splitlines()))


def test_whole_without_a_limit() -> None:
    text = table(HEADER, ROWS, right=(1,))
    assert text.splitlines()[0] == "name   MAdds  what"
    assert text.splitlines()[3] == "a     1.00 G  some words that say at length what it is"


@pytest.mark.parametrize("columns", [30, 40, 120])
def test_words_are_wrapped_and_numbers_are_not(columns: int) -> None:
    text = table(HEADER, ROWS, right=(1,), columns=columns)
    assert longest(text) <= columns
    assert "1.00 G" in text
    assert " ".join(text.split()).count("short") == 1


def test_too_narrow_for_a_table_is_a_list() -> None:
    text = table(HEADER, ROWS, right=(1,), columns=20)
    assert longest(text) <= 20
    assert text.splitlines()[:3] == ["a", "  MAdds: 1.00 G", "  what it is: some"]


def test_sentences_keep_their_indent() -> None:
    assert sentences("  one two three", 10) == "  one two\n  three"
    assert sentences("one two three", None) == "one two three"


@pytest.mark.parametrize("columns", [50, 80, 120])
@pytest.mark.parametrize("words", [["list", "*_resnet1?"], ["cost", "dy_resnet10"]], ids=["list", "cost"])
def test_commands_fit(
    words: list[str], columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0
    whole = capsys.readouterr().out
    for module in ("tables", "cost"):
        monkeypatch.setattr(f"dynaconv.cli.{module}.width", lambda: columns)
    assert main(words) == 0
    fitted = capsys.readouterr().out
    assert longest(fitted) <= columns
    kept = "".join(fitted.split())
    for word in ("1858.30M", "44.93M") if words[0] == "list" else ("Conv2d", "parameters"):
        assert word in whole
        assert word in kept


def test_the_width_is_the_terminals_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "77")
    monkeypatch.setattr(terminal.sys, "stdout", type("Terminal", (), {"isatty": lambda self: True})())
    assert terminal.width() == 77
    monkeypatch.setattr(terminal.sys, "stdout", type("Pipe", (), {"isatty": lambda self: False})())
    assert terminal.width() is None
