"""The monitor's log format: parsed in any pieces, read from the end, never failing on a torn record."""

from __future__ import annotations

import asyncio
import io
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netengine.runtime import logs


def record(text: bytes, number: int = 0, stream: bytes = b"stdout", kind: bytes = b"F") -> bytes:
    return b"2026-11-21T05:41:%02d.%09d+00:00 %s %s %s\n" % (number // 1000 % 60, number, stream, kind, text)


def test_times_have_nanoseconds_and_zones():
    expected = int(datetime(2026, 11, 21, 5, 41, 55, tzinfo=UTC).timestamp()) * 10**9 + 123_456_789
    assert logs.time_ns(b"2026-11-21T05:41:55.123456789+00:00") == expected
    assert logs.time_ns(b"2026-11-21T07:41:55.123456789+02:00") == expected
    assert logs.time_ns(b"2026-11-21T05:41:55Z") == expected - 123_456_789
    for bad in (b"", b"yesterday", b"2026-11-21T05:41:55", b"2026-11-21T05:41:5512+00:00"):
        with pytest.raises(ValueError):
            logs.time_ns(bad)


def test_pieces_of_a_line_go_on_within_their_stream():
    data = record(b"one ", kind=b"P") + record(b"err", stream=b"stderr") + record(b"line") + record(b"next")
    assert [(line.stream, line.data, line.continues) for line in logs.Parser().feed(data)] == [
        (1, b"one ", False), (2, b"err\n", False), (1, b"line\n", True), (1, b"next\n", False),
    ]  # fmt: skip


@given(st.binary(max_size=400), st.integers(1, 20))
def test_garbage_and_cuts_do_no_harm(garbage, step):
    data = record(b"a b  c") + garbage.replace(b"stdout", b"") + b"\n" + record(b"")
    parser = logs.Parser()
    lines = [line for at in range(0, len(data), step) for line in parser.feed(data[at : at + step])]
    assert lines[0].data == b"a b  c\n" and lines[-1].data == b"\n"


@given(st.lists(st.binary(max_size=30).map(lambda b: b.replace(b"\n", b"")), max_size=40), st.integers(0, 45))
def test_the_tail_is_the_last_lines(texts, count):
    data = b"".join(record(text, number) for number, text in enumerate(texts))
    at = logs.tail_offset(io.BytesIO(data), count)
    assert [line.data[:-1] for line in logs.Parser().feed(data[at:])] == (texts[-count:] if count else [])


def test_the_tail_of_a_large_log_crosses_blocks_and_keeps_pieces_together(tmp_path):
    data = b"".join(record(b"x" * 5000, n, kind=b"P") + record(b"%d" % n, n) for n in range(200))
    (tmp_path / "log").write_bytes(data)

    async def read():
        return [line async for line in logs.read(tmp_path / "log", tail=60)]

    lines = asyncio.run(read())
    assert len(lines) == 120 and lines[0].data == b"x" * 5000 and lines[-1].data == b"199\n"


def test_a_log_that_is_not_there_is_empty(tmp_path):
    async def read():
        return [line async for line in logs.read(tmp_path / "none")]

    assert asyncio.run(read()) == []
