"""SIGTERM and SIGINT ask the run to stop; it finishes the step, writes a checkpoint, and ends."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from typing_extensions import Self

from dynaconv.errors import RunError

SIGNALS = (signal.SIGTERM, signal.SIGINT)
PATIENCE = 3  # the signal that ends the process at once; checkpoints are renamed when whole, so none is left half


class Stopped(RunError):  # noqa: N818 - nothing went wrong
    """The run was asked to stop and has written a checkpoint. ``exit_code`` is a shell's: 143 SIGTERM, 130 SIGINT."""

    def __init__(self, number: int, checkpoint: Path | None) -> None:
        name = signal.Signals(number).name
        super().__init__(
            f"Stopped by {name} after writing {checkpoint}. Go on with the same command and --resume auto."
        )
        self.exit_code = 128 + number
        self.checkpoint = checkpoint


class StopSignals:
    """A context manager in which the first signals are recorded in :attr:`received` instead of ending the process."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._count = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._count += 1
        if self._count >= PATIENCE:
            os._exit(128 + number)
        if self.received is None:
            self.received = number
        # os.write: print is not safe inside a handler
        os.write(
            2, b"\ndynaconv: stopping after this step; a checkpoint is written first (a third signal quits at once)\n"
        )
