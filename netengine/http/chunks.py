"""Where a chunked body ends (RFC 9112, 7.1). No input or output; whether it is a sound one is the parser's to say.

The parser knows the end only when it has been given more than that, and what it was given behind it is lost.
"""

from __future__ import annotations

import re

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\n]*)?\r\n")
_LINE_LIMIT = 4096
"""Bytes of the line before a chunk: its size and what a client says beside it."""


class Malformed(Exception):
    """This is not HTTP/1.1, or there is too much of it. What follows cannot be understood either."""


class Chunks:
    """`scan` what comes, until `done`."""

    __slots__ = ("_left", "_limit", "_line", "_trailers", "done")

    def __init__(self, trailer_limit: int) -> None:
        """`trailer_limit`: bytes behind the last chunk."""
        self._limit = trailer_limit
        self._left = 0  # bytes of the chunk under way, its line end among them
        self._line = b""  # of a line, as far as it has come
        self._trailers = -1  # bytes behind the last chunk; -1 before it
        self.done = False

    def scan(self, data: bytes) -> int:
        """How much of the bytes is of the body. Raises Malformed."""
        at = 0
        while at < len(data) and not self.done:
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
            else:
                step = self._take_line(data, at)
            at += step
        return at

    def _take_line(self, data: bytes, at: int) -> int:
        found = data.find(b"\n", at)
        end = found + 1 if found >= 0 else len(data)
        self._line += data[at:end]
        if self._trailers >= 0:
            self._trailers += end - at
        if len(self._line) > (_LINE_LIMIT if self._trailers < 0 else self._limit) or self._trailers > self._limit:
            raise Malformed("a line of a chunked body, or what is behind it, is too long")
        if found >= 0:
            line, self._line = self._line, b""
            self._understand(line)
        return end - at

    def _understand(self, line: bytes) -> None:
        if self._trailers >= 0:
            self.done = line == b"\r\n"
            return
        size = _SIZE.fullmatch(line)
        if size is None:
            raise Malformed(f"a chunk begins with {line[:40]!r}, which is no size")
        length = int(size[1], 16)
        self._left = length + 2 if length else 0
        self._trailers = -1 if length else 0
