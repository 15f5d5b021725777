"""Find the command, run it through typer, turn errors into exit codes."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable

from dynaconv.cli import COMMANDS, Command
from dynaconv.errors import RunError, UserError, suggest

INTERRUPTED = 130  # what a shell reports for SIGINT


def run(arguments: list[str] | None = None) -> int:
    """Answer the exit code of ``dynaconv ARGUMENTS``: 0, 1 (the run had to stop), 2 (a user's mistake), 130, 143."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if not words or words[0] in ("--help", "-h", "help"):
        print(overview())
        return 0 if words else 2
    if words[0] in ("--version", "-V"):
        import dynaconv

        print(f"dynaconv {dynaconv.__version__}")
        return 0
    try:
        return _run_command(words[0], words[1:])
    except UserError as error:
        return _complain(error, 2)
    except RunError as error:
        return _complain(error, error.exit_code)
    except KeyboardInterrupt:
        return _complain("Interrupted.", INTERRUPTED)


def overview() -> str:
    """The text of ``dynaconv --help``."""
    lines = [f"  {name:<9} {command.help}" for name, command in available().items()]
    return "\n".join(
        [
            "Usage: dynaconv COMMAND [ARGUMENTS]...",
            "",
            "Dynamic convolution for PyTorch: put it into a network, count it, train it, compare it.",
            "",
            "Commands:",
            *lines,
            "",
            "'dynaconv COMMAND --help' explains a command; 'dynaconv --version' names the version.",
        ]
    )


def available() -> dict[str, Command]:
    """The commands whose file is there."""
    return {name: command for name, command in COMMANDS.items() if _installed(command.target)}


def load(name: str) -> Callable[..., object]:
    """Import one command's function."""
    if name not in available():
        raise UserError(f"There is no command {name!r}. {suggest(name, available())} 'dynaconv --help' lists them.")
    module, function = COMMANDS[name].target.split(":")
    return getattr(importlib.import_module(f"{__package__}.{module}"), function)


def _run_command(name: str, words: list[str]) -> int:
    if name.startswith("-"):
        raise UserError(f"Expected a command before {name!r}. {suggest(name, available())}")
    function = load(name)
    import typer

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(function)
    try:
        # Typer's own errors (unknown option, missing value) print the usage, a suggestion, and leave with 2.
        app(words, prog_name=f"dynaconv {name}")
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    return 0


def _installed(target: str) -> bool:
    return importlib.util.find_spec(f"{__package__}.{target.split(':')[0]}") is not None


def _complain(error: object, code: int) -> int:
    print(f"dynaconv: {error}", file=sys.stderr)
    return code
