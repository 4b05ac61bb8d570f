"""The audit trail: who asked for which change, when, and what came of it.

Each record is an event of the type `audit`, kept in a file that root alone reads, one JSON object a line. Two files of at most
8 MiB are kept, some 40,000 records: when `audit.log` is full it becomes `audit.log.1`, and the older one is gone. The API finds
out who somebody is (api/audit.py); what is written here is not looked at by the engine again.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec

from netengine.engine.events import Event, Events

log = logging.getLogger(__name__)

FILE = "audit.log"
LIMIT = 8 << 20
"""Bytes of each of the two files."""
KIND = "audit"


class Audit:
    """The trail of one daemon, under its data root. Used from the event loop."""

    def __init__(self, data_root: Path) -> None:
        self._path = data_root / FILE
        self._descriptor = -1
        self._size = 0
        self._bus = Events()
        self._broken = False

    def record(self, action: str, identity: str, **attributes: str) -> None:
        """Write a record down before this returns. A disk that does not take it costs the record, and one line in the log."""
        self._bus.publish(KIND, action, identity, **attributes)
        line = msgspec.json.encode(self._bus.last) + b"\n"
        try:
            if self._descriptor < 0 or self._size + len(line) > LIMIT:
                self._open(len(line))
            written = os.write(self._descriptor, line)
            self._size += written
            if written < len(line):
                raise OSError(28, os.strerror(28))
            self._broken = False
        except OSError as error:
            if not self._broken:
                log.error("the audit trail %s cannot be written: %s", self._path, error.strerror)
            self._broken = True

    def _open(self, more: int) -> None:
        """Open the file, a new one when there is no room for so many bytes more. What was cut short by a crash gets its end."""
        self.close_file()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._path, flags, 0o600)
        size = os.fstat(descriptor).st_size
        if size and size + more > LIMIT:
            os.close(descriptor)
            os.replace(self._path, f"{self._path}.1")
            descriptor, size = os.open(self._path, flags, 0o600), 0
        self._descriptor, self._size = descriptor, size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            self._size += os.write(descriptor, b"\n")

    async def listen(self, since_ns: int | None, until_ns: int | None) -> AsyncIterator[Event]:
        """Past records since `since_ns` (all when it is None), then live ones until `until_ns` (for ever)."""
        # Subscribed before the file is read, so that nothing falls between; what is in both is passed over by its time.
        last = self._bus.last
        live = self._bus.listen(last.time_ns + 1 if last else 0, until_ns)
        past = await asyncio.to_thread(lambda: list(self._past(since_ns or 0, last.time_ns if last else None)))
        for event in past:
            if until_ns is None or event.time_ns <= until_ns:
                yield event
        async for event in live:
            yield event

    def _past(self, since_ns: int, last_ns: int | None) -> Iterator[Event]:
        for path in (Path(f"{self._path}.1"), self._path):
            try:
                lines = path.read_bytes().splitlines()
            except OSError:
                continue
            for line in lines:
                try:
                    event = msgspec.json.decode(line, type=Event)
                except msgspec.DecodeError:
                    continue  # cut short when the machine went down
                if event.time_ns >= since_ns and (last_ns is None or event.time_ns <= last_ns):
                    yield event

    def close_file(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def close(self) -> None:
        """End all listeners and let go of the file: the daemon stops."""
        self._bus.close()
        self.close_file()
