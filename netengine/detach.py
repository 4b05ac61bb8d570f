"""`netengined --detach`: leave the terminal, and come back to it with the outcome.

The command returns once the daemon serves, or with the daemon's own error text and exit code. Must run before any thread
exists, since a fork takes only the calling one along.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

LOG_KEPT_BYTES = 8 << 20  # a larger log is set aside at the next start, once


class Outcome:
    """The daemon's end of the pipe to the command that started it; in the foreground there is none."""

    def __init__(self, descriptor: int = -1) -> None:
        self._descriptor = descriptor

    def ready(self) -> None:
        """The daemon serves: let the command return 0."""
        self._send(b"0\n")

    def failed(self, code: int, text: str) -> None:
        """The daemon gives up before it was ready: let the command print `text` and return `code`."""
        self._send(f"{code}\n{text}".encode())

    def _send(self, message: bytes) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        with open(descriptor, "wb", buffering=0) as pipe:
            try:
                pipe.write(message)
            except BrokenPipeError:
                pass  # the terminal was closed meanwhile; the daemon goes on


def detach(log_file: Path | None) -> Outcome:
    """Fork twice and return in the grandchild only; the caller's process leaves by SystemExit when the outcome is known.

    `log_file` takes stdout and stderr from then on; None leaves them (they are the journal already).
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe()
    if child := os.fork():
        os.close(writer)
        os.waitpid(child, 0)
        raise SystemExit(_await(reader, log_file))
    os.close(reader)
    os.setsid()
    if os.fork():  # the session leader leaves: the daemon can never acquire a controlling terminal again
        os._exit(0)
    os.chdir("/")
    os.umask(0o022)
    _redirect(log_file)
    return Outcome(writer)


def _await(reader: int, log_file: Path | None) -> int:
    with open(reader, "rb") as pipe:
        # Not to the end of file unless it failed: a process that the daemon forked may keep the pipe open.
        code = pipe.readline().decode("ascii", "replace").strip()
        text = "" if code == "0" else pipe.read().decode(errors="replace")
    if not code.isdigit():
        where = f"; its last words are in {log_file}" if log_file else ""
        code, text = "1", f"netengined: the daemon died before it was ready{where}"
    if text:
        print(text, file=sys.stderr)
    return int(code)


def _redirect(log_file: Path | None) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    if log_file is None:
        return
    try:
        if log_file.stat().st_size > LOG_KEPT_BYTES:
            log_file.replace(log_file.with_suffix(".log.1"))
    except FileNotFoundError:
        pass
    target = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)
