"""What the documents show holds: examples in docstrings and pages run, the commands and files that they name exist."""

from __future__ import annotations

import doctest
import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import timm

from dynaconv.cli import load
from dynaconv.cli.app import Commands
from dynaconv.counting import formulas
from dynaconv.ops import measured

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCES = REPOSITORY / "src"
PAGES = {
    str(path.relative_to(REPOSITORY)): path.read_text(encoding="utf-8")
    for path in [
        *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "checkpoints/README.md")),
        *sorted((REPOSITORY / "docs").glob("*.md")),
    ]
}
ROOMS = ("src", "tests", "tools", "examples")
OF_OTHERS = {"mnasnet_config.py", "main.py", "utils.py"}  # of the authors' code, which docs/recipes.md compares


def modules_with_examples() -> list[str]:
    files = [path for path in sorted(SOURCES.rglob("*.py")) if ">>> " in path.read_text(encoding="utf-8")]
    names = [".".join(path.relative_to(SOURCES).with_suffix("").parts) for path in files]
    return [name.removesuffix(".__init__") for name in names]


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_in_docstrings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formulas, "_registered", dict(formulas._registered))  # one example teaches the counter
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0, f"{name}: doctest does not find its examples"
    assert result.failed == 0, f"{name}: what failed is printed above"


def test_there_are_examples() -> None:
    assert {"dynaconv.errors", "dynaconv.counting.counter"} <= set(modules_with_examples())


def python_of(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGES[page], flags=re.DOTALL)


@pytest.mark.parametrize("page", [page for page in PAGES if python_of(page)])
def test_python_of_a_page_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The blocks of a page in their order, in one namespace, as a reader types them.

    timm's network is a small one without pretrained weights, because tests download nothing.
    """
    asked: list[str] = []

    def small(name: str, **arguments: Any) -> Any:
        asked.append(name)
        if name == "small_resnet":  # of a checkpoint in the repository
            return create(name, **arguments)
        return create("test_efficientnet", **{**arguments, "pretrained": False})

    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", small)
    monkeypatch.setattr(measured, "cache_file", lambda: tmp_path / "strategies.json")
    monkeypatch.chdir(tmp_path)  # pages write files
    (tmp_path / "checkpoints").symlink_to(REPOSITORY / "checkpoints")
    names: dict[str, Any] = {"__name__": "page"}
    try:
        for number, block in enumerate(python_of(page)):
            exec(compile(block, f"{page}, Python block {number + 1}", "exec"), names)
    finally:
        measured.forget()
    assert capsys.readouterr().out
    assert all(timm.is_model(name) for name in asked)
    if page == "docs/how-to-speed.md":
        assert (tmp_path / "strategies.json").is_file()
    if page == "README.md":
        assert tuple(names["y"].shape) == (8, 32, 32, 32)
        assert tuple(names["weights"].shape) == (8, 4)


def commands() -> list[tuple[str, str]]:
    """Every ``dynaconv COMMAND ...`` of the pages' blocks (indented or fenced), without comments and redirections."""
    found = []
    for page, text in PAGES.items():
        whole = text.replace("\\\n", " ")
        fenced = "\n".join(re.findall(r"```\w+\n(.*?)```", whole, flags=re.DOTALL))
        block = re.sub(r"```\w+\n.*?```", "", whole, flags=re.DOTALL)
        lines = [*fenced.splitlines(), *re.findall(r"^ {4}(.*)", block, flags=re.MULTILINE)]
        typed = [match[1] for line in lines if (match := re.match(r"(?:.*-m |\S+=\S+ )?dynaconv ([a-z].*)", line))]
        found += [(page, re.split(r" # |[>'|]", words)[0].strip()) for words in typed]
    return found


@pytest.mark.parametrize(("page", "typed"), commands())
def test_commands_of_the_pages_are_understood(page: str, typed: str) -> None:
    name, *words = [word for word in shlex.split(typed) if word != "..."]
    load(name)
    command = Commands(name="dynaconv").get_command(None, name)
    with command.make_context(name, words) as context:
        assert context.params


def test_commands_are_found() -> None:
    assert {typed.split()[0] for _, typed in commands()} >= {"train", "eval", "compare", "bench"}


@pytest.mark.parametrize("page", PAGES)
def test_options_that_a_page_names_exist(page: str) -> None:
    for name, words in re.findall(r"`dynaconv ([a-z]+)((?: [^`]*)?)`", PAGES[page]):
        command = Commands(name="dynaconv").get_command(None, name)
        assert command is not None, f"there is no command {name}"
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert set(re.findall(r"--[a-z][a-z0-9-]*", words)) <= known | {"--help"}


@pytest.mark.parametrize("page", PAGES)
def test_files_and_names_of_a_page_exist(page: str) -> None:
    text, folder = PAGES[page], (REPOSITORY / page).parent
    links = [link for link in re.findall(r"\]\(([^)\s#]+)", text) if "://" not in link]
    missing = [link for link in links if not (folder / link).exists()]
    tree = [f"/{path.relative_to(REPOSITORY)}" for room in ROOMS for path in (REPOSITORY / room).rglob("*.*")]
    files = [name for name in re.findall(r"`([\w./]+\.(?:py|c|h))`", text) if name not in OF_OTHERS]
    missing += [name for name in files if not any(path.endswith(f"/{name}") for path in tree)]
    missing += [name for name in re.findall(r"`(dynaconv(?:\.\w+)+)", text) if not _resolves(name)]
    assert not missing


def _resolves(name: str) -> bool:
    found: Any = importlib.import_module("dynaconv")
    walked = "dynaconv"
    for part in name.split(".")[1:]:
        walked = f"{walked}.{part}"
        if not hasattr(found, part):
            try:
                found = importlib.import_module(walked)
            except ModuleNotFoundError:
                return False
        else:
            found = getattr(found, part)
    return True
