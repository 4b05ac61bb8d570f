"""Lock files: one daemon per data directory and per run directory.

A pid in a file proves nothing after a crash or a reboot; a lock does, since the kernel drops it with its holder. The pid is
written for people and for scripts. What the daemon does with its directories does not belong here.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from netengine.errors import Conflict, Invalid


class LockFile:
    """A file that holds the pid of the process that holds its flock(2). Use as a context manager.

    The descriptor is closed on exec, so that a container's monitor does not keep the lock after the daemon has died; a child
    that is forked and does *not* exec does keep it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1

    def __enter__(self) -> LockFile:
        """Raises `Conflict` when another process holds the lock, `Invalid` when the path cannot be used."""
        while self._descriptor < 0:
            descriptor = self._open()
            try:
                self._lock(descriptor)
                if self._is_current(descriptor):
                    self._write(descriptor)
                    self._descriptor = descriptor
            finally:
                if self._descriptor < 0:
                    os.close(descriptor)
        return self

    def __exit__(self, *_: object) -> None:
        # Removed while still locked: who waits on the old file finds by `_is_current` that it has no name any more.
        if self._is_current(self._descriptor):
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = -1

    def _open(self) -> int:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
        except OSError as error:
            why = "is a symbolic link" if error.errno == errno.ELOOP else error.strerror
            raise Invalid(f"the lock file {self.path} cannot be used: {why}") from error

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _content(descriptor).decode("ascii", "replace").strip()
            holder = f"with pid {pid}" if pid.isdigit() else "of unknown pid"
            raise Conflict(
                f"a netengined {holder} is already running: it holds {self.path}; stop it first, or give this one a"
                " --data-root, --exec-root and --pidfile of its own"
            ) from None

    def _is_current(self, descriptor: int) -> bool:
        try:
            named = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(named, os.fstat(descriptor))

    def _write(self, descriptor: int) -> None:
        content = _content(descriptor).strip()
        if content and not content.isdigit():
            raise Invalid(f"{self.path} exists and does not hold a pid; it is left alone: choose another --pidfile")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)


def _content(descriptor: int) -> bytes:
    try:
        return os.pread(descriptor, 64, 0)
    except OSError as error:  # a FIFO or a terminal cannot be read at an offset
        raise Invalid(f"the lock file is not a regular file: {error.strerror}") from error
