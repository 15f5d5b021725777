"""What must be true of every case: no traceback, exit 0, 1 or 2, an error that names the file, nothing wrong in
silence, no hang, bounded memory, nothing half written."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import resource
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from dynaconv.cli import main
from dynaconv.errors import RunError, UserError
from dynaconv.files import TEMPORARY
from train.tiny import same

SECONDS = 120  # far more than any case takes on a machine that is shared
BYTES = 6 << 30  # of address space beyond what the process has already
CODES = (0, 1, 2)
NOBODY = 65534


class Fault(AssertionError):  # noqa: N818 - what it is
    """What a case must not do."""


class Refused(Exception):  # noqa: N818 - what happened
    """A command ended with an exit code that is not 0, and this message."""


def command(*words: object) -> str:
    """Run ``dynaconv WORDS`` in this process; what it printed.

    Raises:
        Refused: it ended with an exit code that is not 0.
    """
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in words])
    if "Traceback" in err.getvalue() or code not in CODES:
        raise Fault(f"exit {code}, and said: {err.getvalue()[-2000:]}")
    if code:
        raise Refused(err.getvalue())
    return out.getvalue()


def judge(
    read: Callable[[], Any], before: Any, folder: Path, *, checked: bool, named: tuple[str, ...], user: bool = False
) -> str:
    """Read a damaged file as the program does; ``refused``, ``unchanged``, ``warned`` or ``changed`` came of it.

    Args:
        read: the reader or command.
        before: what it returned for the undamaged file.
        folder: everything that the case may write.
        checked: the file has a checksum, so a changed result of which no warning tells is a fault.
        named: words of which an error must have one.
        user: read as a user whom file modes concern.

    Raises:
        Fault: the case did what none may do.
    """
    try:
        as_user = _nobody(folder) if user else contextlib.nullcontext()
        with _limits(), _warnings() as warned, as_user, warnings.catch_warnings():
            # torch's own advice, which depends on the machine
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            after = read()
    except (Refused, UserError, RunError) as error:
        message = str(error)
        if not any(word in message for word in named):
            raise Fault(f"refused, but {' or '.join(named)} is not named: {message[-1000:]}") from error
        outcome = "refused"
    except Fault:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        torch.set_grad_enabled(True)  # an alarm inside a block without gradients leaves them off for the cases to come
        raise Fault(f"traceback: {type(error).__name__}: {str(error)[:1000]}") from error
    else:
        differences = same(after, before)
        told = any(word in line for word in named for line in warned)
        if differences and checked and not told:
            raise Fault(f"wrong in silence: {differences[:3]}")
        outcome = "warned" if differences and told else "changed" if differences else "unchanged"
    half = [path for path in folder.rglob(f"*{TEMPORARY}") if path.is_file()]
    if half:
        raise Fault(f"half written: {half}")
    return outcome


class _TooLong(BaseException):
    """Raised by the alarm; no Exception, so that nothing on the way takes it for an ordinary error."""


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise _TooLong(f"{SECONDS} s passed")

    handler = signal.signal(signal.SIGALRM, ring)
    memory = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, memory[1]))
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, memory)


@contextlib.contextmanager
def _warnings() -> Iterator[list[str]]:
    """The warnings in the log."""
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("dynaconv").addHandler(handler)
    try:
        yield lines
    finally:
        logging.getLogger("dynaconv").removeHandler(handler)


@contextlib.contextmanager
def _nobody(folder: Path) -> Iterator[None]:
    """As a user whom file modes concern: root reads everything."""
    if os.geteuid():
        yield
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
