"""The daemon's own log: one line a record, on stderr, with priorities where the journal reads it.

Only the form lives here. Containers' logs are the runtime's.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
_NAMES = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warn", logging.ERROR: "error"}
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}  # sd-daemon(3), syslog(3)

# A name from outside must not be able to start a line of its own, nor to drive the terminal of who reads the log.
_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))} | {0x0A: "\\n", 0x09: "\\t"}


class LineFormatter(logging.Formatter):
    """`2026-01-31T12:00:00Z warn engine: text`, or `<4>engine: text` for the journal, which knows the time itself."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        source = record.name.removeprefix("netengine.")
        lines = [f"{source}: {record.getMessage().translate(_ESCAPES)}"]
        if record.exc_info:
            trace = self.formatException(record.exc_info)
            lines += [f"  {line.translate(_ESCAPES)}" for line in trace.splitlines()]
        if self._journal:  # every line of a stream is a record of its own there
            return "\n".join(f"<{_PRIORITIES.get(record.levelno, 2)}>{line}" for line in lines)
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        return "\n".join([f"{moment} {_NAMES.get(record.levelno, 'error')} {lines[0]}", *lines[1:]])


def to_journal(environ: Mapping[str, str]) -> bool:
    """Whether stderr is the journal: systemd names its device and inode; an inherited variable alone proves nothing."""
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def configure(level: str, environ: Mapping[str, str]) -> None:
    """Send the records of `level` (debug, info, warn, error) and above to stderr, in place of what was set before."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(journal=to_journal(environ)))
    logging.basicConfig(level=LEVELS[level], handlers=[handler], force=True)
    if level != "debug":
        logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.captureWarnings(True)
