"""The daemon's log: one line a record, whatever a name from outside holds."""

from __future__ import annotations

import logging
import os
import sys

from netengine.daemonlog import LineFormatter, to_journal


def record(message: str, level: int = logging.WARNING, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("netengine.engine.core", level, __file__, 1, message, None, None)
    made.created = 0.0
    made.__dict__.update(extra)
    return made


def test_a_record_is_one_line_with_time_level_and_source() -> None:
    assert LineFormatter(journal=False).format(record("ready")) == "1970-01-01T00:00:00Z warn engine.core: ready"


def test_the_journal_gets_a_priority_and_no_time() -> None:
    assert LineFormatter(journal=True).format(record("ready", logging.ERROR)) == "<3>engine.core: ready"


def test_control_characters_cannot_start_a_line_or_drive_a_terminal() -> None:
    text = LineFormatter(journal=False).format(record("name \n<0>forged \x1b[2J\x9b end"))
    assert text.endswith("name \\n<0>forged \\x1b[2J\\x9b end")


def test_every_line_of_a_trace_is_marked_for_the_journal() -> None:
    try:
        raise ValueError("boom")
    except ValueError:
        lines = LineFormatter(journal=True).format(record("failed", exc_info=sys.exc_info())).splitlines()
    assert len(lines) > 2
    assert all(line.startswith("<4>") for line in lines)


def test_the_journal_is_known_by_device_and_inode_only() -> None:
    status = os.fstat(2)
    assert to_journal({"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
    assert not to_journal({"JOURNAL_STREAM": "1:1"})
    assert not to_journal({})
