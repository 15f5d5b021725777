"""The ``dynaconv`` command.

One file per command. To add one: write ``cli/<file>.py`` with a function whose arguments are Typer's (those that other
commands have too stand in :mod:`dynaconv.cli.options`), and name it in :data:`COMMANDS`. Nothing is imported before
its command is called, so ``dynaconv cost --help`` never waits for the training libraries; keep heavy imports inside the
function for the same reason.

The function raises ``dynaconv.errors.UserError`` for a user's mistake (exit 2) and ``RunError`` for a run that had to
stop (exit 1); both are printed as one paragraph without a traceback.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from dynaconv.errors import UserError, suggest


class CommandPlace(NamedTuple):
    """Where a command's function is, and the line that ``dynaconv --help`` shows for it."""

    target: str  # "module:function", the module relative to dynaconv.cli
    help: str


COMMANDS: dict[str, CommandPlace] = {
    "compare": CommandPlace("compare:compare", "Would dynamic convolution help a network, and what would it cost?"),
    "ablate": CommandPlace("ablate:ablate", "Repeat an ablation of the papers at the size of a desk, with seeds."),
    "train": CommandPlace("train:train", "Train a network, static or dynamic; stop and resume at any moment."),
    "eval": CommandPlace("evaluate:evaluate", "Measure a trained network on a data set."),
    "predict": CommandPlace("predict:predict", "Classify image files and folders into CSV or JSON."),
    "inspect": CommandPlace("inspect:inspect", "Look at what the routers of a trained network do, image by image."),
    "export": CommandPlace("export:export", "Write a network as ONNX, torch.export or AOTInductor, run it, check it."),
    "serve": CommandPlace("serve:serve", "Serve a trained network over HTTP, with a page to drop pictures on."),
    "cost": CommandPlace("cost:cost", "Count parameters and multiply-adds, layer by layer."),
    "list": CommandPlace("tables:list_models", "List the networks that can be trained by name."),
    "tables": CommandPlace("tables:tables", "Print the papers' tables beside our own counts."),
    "bench": CommandPlace("bench:bench", "Time layers and networks against their static twins."),
}


def load(name: str) -> Callable[..., Any]:
    """Import one command's function.

    Raises:
        UserError: there is no such command.
    """
    if name not in COMMANDS:
        raise UserError(f"There is no command {name!r}. {suggest(name, COMMANDS)} 'dynaconv --help' lists them.")
    module, function = COMMANDS[name].target.split(":")
    found: Callable[..., Any] = getattr(importlib.import_module(f"dynaconv.cli.{module}"), function)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run ``dynaconv`` with these arguments (the process's own if ``None``) and return the exit code."""
    from dynaconv.cli.app import run

    return run(sys.argv[1:] if arguments is None else list(arguments))
