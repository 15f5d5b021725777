"""Tables fit the terminal, and are whole when piped."""

from __future__ import annotations

import io
from pathlib import Path

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


def test_a_word_is_never_broken_to_fit() -> None:
    rows = [["layer1.0.conv1", "DynamicConv2d K=4", "some words that say at length what it is"]]
    text = table(["layer", "kind of layer", "what"], rows, columns=60)
    assert longest(text) <= 60
    assert "DynamicConv2d" in text
    narrow = table(["layer", "kind of layer", "what"], rows, columns=40)
    assert longest(narrow) <= 40
    assert narrow.splitlines()[0] == "layer1.0.conv1", "a list, where a column would have to break a word"
    assert "DynamicConv2d" in narrow


def test_a_name_longer_than_the_terminal_is_whole_on_several_lines() -> None:
    name = "features." * 9 + "conv"
    text = table(["layer", "MAdds"], [[name, "1"]], right=(1,), columns=50)
    assert longest(text) <= 50
    assert name in "".join(text.split())


@pytest.mark.parametrize("columns", [50, 80, 120])
def test_progress_is_not_cut_off(columns: int) -> None:
    from rich.console import Console

    from dynaconv.train.progress import Bar

    out = io.StringIO()
    bar = Bar(Console(file=out, width=columns, color_system=None))
    bar.start(100, 1234, 98, 1000, ())
    bar.evaluating(99, 99, 100)
    bar.close()
    bar.console.print(bar._progress.get_renderable())
    assert "epoch 100/100 evaluating 99/100" in out.getvalue()
    assert "…" not in out.getvalue()
    assert "left" in out.getvalue()


@pytest.mark.parametrize("columns", [55, 80, 120])
def test_progress_of_a_comparison_is_not_cut_off(columns: int, tmp_path: Path) -> None:
    from rich.console import Console

    from dynaconv.analysis.settings import CompareSettings
    from dynaconv.cli.compare_bar import CompareBar

    out = io.StringIO()
    console = Console(file=out, width=columns, color_system=None)
    bar = CompareBar(CompareSettings(), tmp_path, console)
    bar.start(18, 18, 18.0)
    progress = bar.run("condconv K=8", 2, 1.0)
    progress.start(10, 5, 9, 3, ())
    bar.close()
    bar.console.print(bar._progress.get_renderable())
    assert "1/18 condconv K=8, seed 2, epoch 10/10" in out.getvalue()
    assert "…" not in out.getvalue()


def test_errors_fit_the_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(terminal, "width", lambda stream=None: 50)
    assert main(["cost", "no_file_of_tests.py:build"]) == 2
    assert longest(capsys.readouterr().err) <= 50
