"""From ``package.module:function`` or ``path/to/file.py:function`` to the function, which builds a network.

Importing runs the code of that module or file. So a name is imported only where the user gave it, in a call or on the
command line; a name that a file holds is never imported.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from dynaconv.errors import UserError, suggest

SCHEMES = ("hf-hub", "hf_hub", "local-dir", "timm")  # timm's own names with a colon
_EXPECTED = "expected package.module:function or path/to/file.py:function"
_MODULES: dict[tuple[str, str], ModuleType] = {}  # by path and digest: a file is run once while it stays the same


def is_function_name(name: str) -> bool:
    """Whether ``name`` means a function in a module or a file.

    >>> [is_function_name(name) for name in ("nets.small:build", "my/net.py:build", "resnet18", "hf-hub:timm/resnet18")]
    [True, True, False, False]
    """
    place, colon, _ = name.rpartition(":")
    if not colon:
        return name.endswith(".py")
    if place in SCHEMES:
        return False
    return place.endswith(".py") or all(part.isidentifier() for part in place.split("."))


def file_of_function(name: str) -> Path | None:
    """The file of a name such as ``path/to/file.py:function``; None for a module's."""
    place = name.rpartition(":")[0] or name
    return Path(place).expanduser() if place.endswith(".py") else None


def find_function(name: str) -> Callable[..., Any]:
    """Import the module or file, and return the function (or class) of that name.

    A file's own folder, and for a module the folder in which the command runs, can be imported from.

    Raises:
        UserError: no such file or module, an error while it is imported (named with its line), no such function.
    """
    place, colon, function = name.rpartition(":")
    if not colon or not function:
        raise UserError(f"{name!r} names no function; {_EXPECTED}. {_functions_in(Path(place or name))}")
    module = _run_file(Path(place).expanduser()) if place.endswith(".py") else _import(place)
    found: Any = module
    for part in function.split("."):
        if not hasattr(found, part):
            raise UserError(f"{place} has no function {function!r}. {suggest(function, _builders(module))}")
        found = getattr(found, part)
    if isinstance(found, nn.Module):
        raise UserError(
            f"{name} is a network itself ({type(found).__name__}); expected a function that builds one, because some "
            f"commands build it several times: def build(): return ..."
        )
    if not callable(found):
        raise UserError(
            f"{name} is {type(found).__name__}; expected a function that returns a torch.nn.Module. "
            f"{suggest(function, _builders(module))}"
        )
    made: Callable[..., Any] = found
    return made


def call_function(
    name: str, function: Callable[..., Any], given: Mapping[str, Any], offered: Mapping[str, Any]
) -> nn.Module:
    """Call the function, and check what it returns.

    Args:
        name: for messages.
        given: arguments that the user named; the function must take them.
        offered: arguments that it gets if its signature has them.

    Raises:
        UserError: it does not take an argument, needs another, fails (with its line), or returns no module.
    """
    parameters = _parameters(function)
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    for word in given:
        if word not in parameters and not takes_any:
            raise UserError(f"{name} takes no argument {word!r}. {_taken(word, parameters)}")
    arguments = {**{word: value for word, value in offered.items() if word in parameters}, **given}
    missing = [
        word
        for word, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        and word not in arguments
    ]
    if missing:
        raise UserError(
            f"{name} needs the argument{'s' if len(missing) > 1 else ''} {', '.join(missing)}: give "
            f"{' '.join(f'--arg {word}=VALUE' for word in missing)}, or give the function "
            "defaults. Only num_classes, if it has it, is filled in"
        )
    with _importable(file_of_function(name)):
        try:
            made = function(**arguments)
        except Exception as error:  # whatever the user's code raises
            raise UserError(f"{name} failed{_where(error)}: {type(error).__name__}: {error}") from error
    if not isinstance(made, nn.Module):
        raise UserError(
            f"{name} returned {type(made).__name__}; expected a torch.nn.Module"
            + (" (is a `return` missing?)" if made is None else "")
        )
    return made


def takes(function: Callable[..., Any], word: str) -> bool:
    """Whether the function's signature has an argument of that name."""
    return word in _parameters(function)


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # written in C
        return {}


def _taken(word: str, parameters: Mapping[str, inspect.Parameter]) -> str:
    return suggest(word, parameters) if parameters else "It takes none."


def _run_file(path: Path) -> ModuleType:
    if not path.is_file():
        beside = [each.name for each in path.parent.glob("*.py")] if path.parent.is_dir() else []
        hint = suggest(path.name, beside) if beside else f"There is no Python file in {path.parent}."
        raise UserError(f"There is no file {path} (looked for in {Path.cwd()}). {hint}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    digest = hashlib.sha256(content).hexdigest()
    key = (str(path.resolve()), digest)
    if key in _MODULES:
        return _MODULES[key]
    called = f"_dynaconv_file_{digest[:8]}_{path.stem}"
    spec = importlib.util.spec_from_file_location(called, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[called] = module  # dataclasses and pickles look for the module of a class there
    try:
        with _importable(path):
            spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's code raises
        del sys.modules[called]
        raise UserError(f"{path} cannot be imported{_where(error)}: {type(error).__name__}: {error}") from error
    _MODULES[key] = module
    return module


def _import(place: str) -> ModuleType:
    try:
        with _importable(None):
            return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name and (place == error.name or place.startswith(f"{error.name}.")):
            raise UserError(
                f"There is no module {place!r}: {error.name!r} is neither installed nor a file or package in "
                f"{Path.cwd()}. {_near(error.name)}Expected package.module:function or path/to/file.py:function"
            ) from error
        raise UserError(f"{place} cannot be imported{_where(error)}: {error}") from error
    except Exception as error:  # whatever the user's code raises
        raise UserError(f"{place} cannot be imported{_where(error)}: {type(error).__name__}: {error}") from error


@contextmanager
def _importable(path: Path | None) -> Iterator[None]:
    """Let the modules beside a file (or in the present folder) be imported, as Python does for a script."""
    folder = str(Path.cwd() if path is None else path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def _near(module: str) -> str:
    if "." in module:
        return ""
    here = [each.stem for each in Path.cwd().glob("*.py")] + [each.parent.name for each in Path.cwd().glob("*/*.py")]
    hint = suggest(module, here) if here else ""
    return f"{hint} " if hint.startswith("Did") else ""


def _builders(module: ModuleType) -> list[str]:
    """The names that may be meant: the module's own functions and networks, or else all that can be called."""
    callables = {name: value for name, value in vars(module).items() if callable(value) and not name.startswith("_")}
    own = [name for name, value in callables.items() if getattr(value, "__module__", None) == module.__name__]
    return own or list(callables)


def _functions_in(path: Path) -> str:
    """The functions of a file, read without running it."""
    try:
        body = ast.parse(path.read_text(encoding="utf-8")).body
    except (OSError, ValueError, SyntaxError):
        return ""
    names = [node.name for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    return f"{path} has {', '.join(names[:12])}." if names else f"{path} has no function."


def _where(error: Exception) -> str:
    """The last line of the user's own code that an error came through."""
    if isinstance(error, SyntaxError):
        return ""
    library = os.path.dirname(os.__file__)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != __file__ and not frame.filename.startswith((library, "<frozen"))
    ]
    own = [frame for frame in frames if "site-packages" not in frame.filename]
    return f" at {own[-1].filename}, line {own[-1].lineno}" if own else ""
