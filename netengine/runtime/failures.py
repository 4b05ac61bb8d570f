"""What the OCI runtime says when it fails, as the errors of netengine, in the shape that Docker's clients look for.

`docker run` exits 127 when the text has "executable file not found" or "no such file or directory", 126 for "permission
denied" or "is a directory", else 125.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from netengine.errors import Invalid, KernelRefused, NetengineError

# The user's command or mount is at fault, not the machine: the request will never work.
_USERS_FAULT = ("executable file not found", "no such file or directory", "permission denied", "is a directory",
                "not a directory", "exec format error")  # fmt: skip


class _Line(msgspec.Struct):
    level: str = ""
    msg: str = ""


def last_error(log: Path, fallback: str) -> str:
    """The last error in the OCI runtime's JSON log; else the last line of `fallback`."""
    try:
        lines = log.read_bytes().splitlines()
    except OSError:
        lines = []
    for line in reversed(lines):
        try:
            entry = msgspec.json.decode(line, type=_Line)
        except msgspec.MsgspecError:
            continue
        if entry.level in ("error", "fatal") and entry.msg:
            return entry.msg
    tail = [line.strip() for line in fallback.splitlines() if line.strip()]
    return tail[-1][:2000] if tail else "no reason was given"


def create_failure(log: Path, fallback: str) -> NetengineError:
    """Why `runc create` failed."""
    return _failure("OCI runtime create failed", last_error(log, fallback))


def start_failure(log: Path, fallback: str) -> NetengineError:
    """Why `runc start` failed."""
    return _failure("OCI runtime start failed", last_error(log, fallback))


def exec_failure(log: Path, fallback: str) -> NetengineError:
    """Why `runc exec` failed."""
    return _failure("OCI runtime exec failed", last_error(log, fallback))


def _failure(what: str, reason: str) -> NetengineError:
    text = f"{what}: {reason}"
    lowered = reason.lower()
    if "exec" in lowered and any(mark in lowered for mark in _USERS_FAULT):
        return Invalid(text)
    return KernelRefused(text)
