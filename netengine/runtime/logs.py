"""Container logs in k8s-file format: parsing, the last N lines, following a file that grows.

One record a line: `TIME stdout|stderr P|F TEXT`; P marks a piece whose line goes on in the stream's next record. Reading
only: the monitor writes.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from netengine.runtime import syscalls
from netengine.runtime.channel import Watch
from netengine.runtime.model import LogLine

_BLOCK = 128 * 1024
_STREAMS = {b"stdout": 1, b"stderr": 2}


@lru_cache(maxsize=64)
def _epoch_seconds(second: bytes, zone: bytes) -> int:
    return int(datetime.fromisoformat(f"{second.decode()}{zone.decode()}").timestamp())


def time_ns(stamp: bytes) -> int:
    """Nanoseconds since the epoch of an RFC 3339 time with any number of decimals. ValueError when it is none."""
    second, rest = stamp[:19], stamp[19:]
    at = max(rest.rfind(b"+"), rest.rfind(b"-"), rest.rfind(b"Z"))
    if at < 0 or (at > 0 and not rest.startswith(b".")):
        raise ValueError(f"not a time: {stamp!r}")
    fraction = rest[1:at] or b"0"
    return _epoch_seconds(second, rest[at:]) * 10**9 + int(fraction[:9].ljust(9, b"0"))


class Parser:
    """Bytes of a log file in, log lines out. A record that is no record (a torn write) is left out."""

    def __init__(self) -> None:
        self._rest = b""
        self._open = {1: False, 2: False}

    def feed(self, data: bytes) -> list[LogLine]:
        """The lines that are complete with `data`."""
        *records, self._rest = (self._rest + data).split(b"\n")
        return [line for record in records if (line := self._line(record)) is not None]

    def _line(self, record: bytes) -> LogLine | None:
        fields = record.split(b" ", 3)
        if len(fields) != 4 or fields[1] not in _STREAMS or fields[2] not in (b"P", b"F"):
            return None
        try:
            stamp = time_ns(fields[0])
        except ValueError:
            return None
        stream, full = _STREAMS[fields[1]], fields[2] == b"F"
        continues, self._open[stream] = self._open[stream], not full
        return LogLine(stream, stamp, fields[3] + b"\n" if full else fields[3], continues)


def tail_offset(file: BinaryIO, lines: int) -> int:
    """The offset at which the last `lines` whole lines begin, read from the end, without reading the rest."""
    position = file.seek(0, os.SEEK_END)
    if lines <= 0:
        return position
    found, after = 0, b""  # `after`: the beginning of a record whose head is in the block before
    end = position
    while position > 0:
        size = min(_BLOCK, position)
        position -= size
        file.seek(position)
        block = file.read(size) + after
        records = block.split(b"\n")
        offset = position + len(block)
        for record in reversed(records[1:]):
            offset -= len(record)
            if record and offset < end and _full(record):
                found += 1
                if found > lines:
                    return offset + len(record) + 1
            offset -= 1
        after = records[0]
        if len(after) > 4 * _BLOCK:  # not a log of ours
            return position
    # The very first record has nothing before it that would have shown where it begins.
    return len(after) + 1 if _full(after) and found == lines else 0


def _full(record: bytes) -> bool:
    fields = record.split(b" ", 3)
    return len(fields) == 4 and fields[2] == b"F"


async def read(
    path: Path,
    *,
    ended: Callable[[], Awaitable[None]] | None = None,
    since_ns: int | None = None,
    until_ns: int | None = None,
    tail: int | None = None,
) -> AsyncGenerator[LogLine, None]:
    """The lines of a log. With `ended` (a function that returns when the container has ended) it follows until then."""
    try:
        file = await asyncio.to_thread(open, path, "rb", 0)
    except FileNotFoundError:
        return
    with file:
        if tail is not None:
            file.seek(await asyncio.to_thread(tail_offset, file, tail))
        chunks = _chunks(file) if ended is None else _following(path, file, ended, until_ns)
        parser = Parser()
        try:
            async for chunk in chunks:
                for line in parser.feed(chunk):
                    if until_ns is not None and line.time_ns > until_ns:
                        return
                    if since_ns is None or line.time_ns >= since_ns:
                        yield line
        finally:
            await chunks.aclose()


async def _chunks(file: BinaryIO) -> AsyncGenerator[bytes, None]:
    """What the file holds now: a container that never stops writing does not make this endless."""
    left = os.fstat(file.fileno()).st_size - file.tell()
    while left > 0 and (chunk := await asyncio.to_thread(file.read, min(left, _BLOCK))):
        left -= len(chunk)
        yield chunk


async def _following(
    path: Path, file: BinaryIO, ended: Callable[[], Awaitable[None]], until_ns: int | None
) -> AsyncGenerator[bytes, None]:
    # The watch is there before the first read, and the end is looked at before the last: nothing falls between.
    end = asyncio.ensure_future(ended())
    try:
        with Watch(path, syscalls.IN_MODIFY) as watch:
            while True:
                last = end.done() or _past(until_ns)
                async for chunk in _chunks(file):
                    yield chunk
                if last:
                    return
                change = asyncio.ensure_future(watch.changed())
                try:
                    await asyncio.wait((change, end), timeout=_left(until_ns), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    change.cancel()
                    await asyncio.gather(change, return_exceptions=True)
    finally:
        end.cancel()
        await asyncio.gather(end, return_exceptions=True)


def _past(until_ns: int | None) -> bool:
    return until_ns is not None and time.time_ns() >= until_ns


def _left(until_ns: int | None) -> float | None:
    return None if until_ns is None else max(0.0, (until_ns - time.time_ns()) / 1e9)
