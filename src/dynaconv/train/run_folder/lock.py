"""One run per output folder."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import stat
import time
from pathlib import Path
from typing import IO

from typing_extensions import Self

from dynaconv.errors import RunError, UserError

NAME = ".lock"


class FolderInUse(UserError):  # noqa: N818 - what it is, not how it is raised
    """Another run holds the folder."""


_held: set[Path] = set()  # the operating system lets one process lock the same file twice
_folders: set[int] = set()  # descriptors of locked folders, which a child would keep locked


def _close_in_child() -> None:
    for descriptor in _folders:
        os.close(descriptor)
    _folders.clear()


os.register_at_fork(after_in_child=_close_in_child)


class FolderLock:
    """A context manager that locks a folder. The operating system releases the locks when the process ends.

    There are two. A record lock (``fcntl.lockf``) on the file ``.lock`` works over NFS, and loader workers, which may
    outlive a killed run by some seconds, do not inherit it. ``flock`` on the folder itself, where the disk can,
    keeps a second run out when somebody removes ``.lock``, thinking it a leftover; workers close what they inherit.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder.resolve() / NAME
        self._file: IO[str] | None = None
        self._folder: int | None = None

    def __enter__(self) -> Self:
        import fcntl

        if self.path in _held:
            raise FolderInUse(f"This process already has a run in {self.path.parent}. Choose another --out.")
        file = self._open()
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._folder = _lock_folder(self.path.parent)
        except OSError as error:
            file.seek(0)
            owner = file.read()
            file.close()
            if error.errno not in (errno.EACCES, errno.EAGAIN):  # what POSIX says for a lock that another one holds
                raise UserError(
                    f"{self.path} cannot be locked ({error.strerror or error}), so nothing would keep a second run "
                    "out of it. Choose an --out on a disk that can lock files."
                ) from error
            raise FolderInUse(
                f"Another run is writing to {self.path.parent}{_who(owner)}. Wait for it, stop it, or choose another "
                "--out."
            ) from None
        file.seek(0)
        file.truncate()
        owner = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%F %T")})
        with contextlib.suppress(OSError):  # a full disk, of which the run speaks in its own words
            os.write(file.fileno(), owner.encode())
        self._file = file
        _held.add(self.path)
        return self

    def _open(self) -> IO[str]:
        try:
            file = open(  # noqa: SIM115 - it is closed with the lock
                os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK, 0o666), "a+"
            )
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                file.close()
                raise OSError(errno.EINVAL, "it is no ordinary file")
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be opened to lock the folder: {error.strerror or error}. Remove it if no run is "
                "writing there."
            ) from error
        return file

    def check(self) -> None:
        """Check that the folder is still locked by this run.

        Raises:
            RunError: the lock file, or the folder with it, was removed or replaced: another run may have been let in.
        """
        assert self._file is not None
        try:
            here = os.stat(self.path)
        except OSError as error:
            raise RunError(
                f"{self.path} has gone ({error.strerror}): somebody removed it, or the run's folder, during the run. "
                "What it would write now could meet another run's files; it stops here."
            ) from error
        mine = os.fstat(self._file.fileno())
        if (here.st_dev, here.st_ino) != (mine.st_dev, mine.st_ino):
            raise RunError(
                f"{self.path} is not the file that this run has locked: somebody removed it, and another run may be "
                "writing here. This run stops."
            )

    def __exit__(self, *_: object) -> None:
        if self._folder in _folders:  # not in a child, where it is closed already
            _folders.discard(self._folder)
            os.close(self._folder)
        self._folder = None
        if self._file is not None:
            _held.discard(self.path)
            self._file.close()  # releases the lock
            self._file = None


def _lock_folder(folder: Path) -> int | None:
    """A descriptor of the locked folder; None where the disk (NFS) cannot lock folders.

    Raises:
        OSError: another run holds it; its errno is EAGAIN.
    """
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise
        return None
    _folders.add(descriptor)
    return descriptor


def _who(owner: str) -> str:
    try:
        facts = json.loads(owner)
        return f" (process {facts['pid']} on {facts['host']}, since {facts['since']})"
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
