"""The Typer application: commands are loaded when called, help shows the settings' defaults, errors take one line."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import sys
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from dynaconv.cli import COMMANDS, load
from dynaconv.cli.defaults import default_of
from dynaconv.errors import DISK, RunError, UserError

INTERRUPTED = 130  # what a shell reports for SIGINT
NO_MEMORY = re.compile("allocate memory|out of memory|Storage size calculation overflowed")
HELP = {"help_option_names": ["-h", "--help"]}

# Names of options that other programs, or other commands of this one, use for the same thing.
SYNONYMS = (
    ("lr", "learning-rate", "learning_rate", "base-lr"),
    ("batch-size", "batch", "bs", "b", "train-batch-size"),
    ("image-size", "size", "img-size", "input-size", "imgsz", "resolution", "input"),
    ("epochs", "num-epochs", "n-epochs", "max-epochs"),
    ("experts", "num-experts", "kernels", "k"),
    ("opt", "optim", "optimiser"),
    ("sched", "scheduler", "lr-scheduler", "schedule"),
    ("weight-decay", "wd", "decay"),
    ("workers", "num-workers", "j"),
    ("threads", "num-threads"),
    ("out", "output", "output-dir", "o", "save-dir"),
    ("data", "dataset", "data-dir", "data-path"),
    ("arg", "args", "kwargs", "model-args"),
    ("device", "gpu", "cuda"),
    ("amp", "fp16", "bf16", "half", "precision", "mixed-precision", "dtype"),
    ("resume", "continue"),
    ("finetune", "weights", "checkpoint", "init", "load"),
    ("clip-grad", "grad-clip", "max-grad-norm", "clip"),
    ("accumulate", "grad-accum", "accumulation", "gradient-accumulation-steps"),
    ("label-smoothing", "smoothing"),
    ("warmup-epochs", "warmup"),
    ("auto-augment", "aa"),
    ("random-erasing", "reprob"),
    ("dropout", "drop", "drop-rate"),
    ("drop-path", "drop-path-rate", "stochastic-depth"),
    ("seed", "random-seed"),
    ("seeds", "num-seeds", "repeats", "runs"),
    ("ema", "model-ema", "ema-decay"),
    ("rounds", "repeat", "iterations", "iters"),
    ("json", "as-json"),
    ("top", "topk", "top-k"),
)


def run(words: list[str]) -> int:
    """Return the exit code of ``dynaconv WORDS``: 0, 1 (the run had to stop), 2 (a user's mistake), 130, 143."""
    # `dynaconv help [COMMAND]` is what people try too; without any word there is nothing to do.
    asked = ["--help"] if not words else [*words[1:2], "--help"] if words[0] == "help" else words
    try:
        code = _application().main(args=asked, prog_name="dynaconv", standalone_mode=False)
        sys.stdout.flush()  # a full disk behind it is noticed here, and not when Python ends
    except SystemExit as leaving:  # completion, or a closed pipe
        code = leaving.code
    except UserError as error:
        return _complain(error, 2)
    except RunError as error:
        return _complain(error, error.exit_code)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except MemoryError as error:
        return _complain(_memory(error), RunError.exit_code)
    except OSError as error:
        if error.filename is None and error.errno in DISK:
            _print_no_more()
            return _complain(f"Cannot write a file, or what is printed: {error.strerror}.", RunError.exit_code)
        if error.filename is None:
            raise
        return _complain(f"{error.filename}: {error.strerror}.", RunError.exit_code)
    except Exception as error:
        if isinstance(error, RuntimeError) and NO_MEMORY.search(str(error)):  # torch has no kind of its own for it
            return _complain(_memory(error), RunError.exit_code)
        if type(error).__name__ == "Abort":
            code = INTERRUPTED
        elif hasattr(error, "format_message"):  # Typer's usage errors, whose module is private
            return _complain(_sentence(error), 2)
        else:
            raise
    if code == INTERRUPTED:
        return _complain("Interrupted.", INTERRUPTED)
    if isinstance(code, int):
        return 2 if not words else code
    return 0 if words else 2


class Command(TyperCommand):
    """A command whose help shows the defaults of the settings that its options belong to."""

    defaults: dict[str, str | None]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        for parameter in self.params:
            place = self.defaults.get(str(parameter.name))
            if place is not None and parameter.default is None:
                parameter.default = default_of(place, str(parameter.name))
        super().format_help(ctx, formatter)


class Commands(TyperGroup):
    """The commands by name; a command's file is imported when it is called, completed or explained."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        function = load(cmd_name)
        single = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
        single.command(cmd_name, cls=Command, context_settings=HELP)(function)
        command: Any = typer.main.get_command(single)
        command.defaults = getattr(function, "defaults", {})
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and not ctx.resilient_parsing:
            load(args[0])  # raises the error for an unknown command
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help) for name, command in COMMANDS.items()])


def nearest(option: str, known: Iterable[str]) -> str | None:
    """Return the option that was probably meant: by another word for the same thing, or by its spelling.

    >>> nearest("--learning-rate", ["--lr", "--epochs"]), nearest("--epocs", ["--lr", "--epochs"])
    ('--lr', '--epochs')
    """
    options = sorted(known)
    word = option.lstrip("-").lower().replace("_", "-")
    for same in SYNONYMS:
        if word in same:
            for other in same:
                if f"--{other}" in options:
                    return f"--{other}"
    close = difflib.get_close_matches(f"--{word}", options, n=1, cutoff=0.6)
    return close[0] if close else None


def _application() -> Any:
    app = typer.Typer(
        cls=Commands,
        add_completion=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings=HELP,
        help="Dynamic convolution for PyTorch: put it into a network, count it, train it, compare it.",
        epilog="'dynaconv COMMAND --help' explains a command.",
    )
    app.callback()(_root)
    return typer.main.get_command(app)


def _root(
    version: Annotated[
        bool, typer.Option("--version", "-V", is_eager=True, callback=_print_version, help="Name the version.")
    ] = False,
) -> None: ...


def _print_version(asked: bool) -> None:
    if asked:
        import dynaconv

        print(f"dynaconv {dynaconv.__version__}")
        raise typer.Exit


def _sentence(error: Any) -> str:
    """One line about an error in the command line: what came, what was probably meant, where the help is."""
    text = " ".join(str(error.format_message()).split()).rstrip(".") + "."
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "dynaconv"
    unknown = getattr(error, "option_name", None)
    if unknown is not None and context is not None:
        known = {name for parameter in context.command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        meant = nearest(unknown, {name for name in known if name.startswith("--")})
        text = f"No such option: {unknown}." + (f" Did you mean {meant!r}?" if meant else "")
    return f"{text} '{command} --help' explains."


def _memory(error: Exception) -> str:
    what = (str(error).splitlines() or [""])[0][:200]
    return f"Not enough memory for this ({what}). A smaller --batch-size, --image-size or network may fit."


def _print_no_more() -> None:
    """What is left in the buffer would fail again when Python ends, with a message and exit code of its own."""
    with contextlib.suppress(OSError, ValueError):  # no file of the system stands behind it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(error: object, code: int) -> int:
    from dynaconv.cli.terminal import sentences, width

    print(sentences(f"dynaconv: {error}", width(sys.stderr)), file=sys.stderr)
    return code
