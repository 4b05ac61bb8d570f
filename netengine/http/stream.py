"""An answer that comes piece by piece, for as long as the client listens."""

from __future__ import annotations

from typing import Protocol


class Sink(Protocol):
    """Where the bytes go; a connection."""

    async def send(self, data: bytes) -> None:
        """Returns when there is room for more. Raises ConnectionError when the client is gone."""


class Stream:
    """Made by Request.stream(). Each piece is sent when it is written, and writing waits for a client that reads slowly."""

    __slots__ = ("_chunked", "_ended", "_sink", "status")

    def __init__(self, sink: Sink, status: int, *, chunked: bool) -> None:
        self.status = status
        self._sink = sink
        self._chunked = chunked
        self._ended = False

    async def write(self, data: bytes) -> None:
        """Raises ConnectionError when the client is gone."""
        if data:  # an empty chunk would be the last
            await self._sink.send(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    async def end(self) -> None:
        """That was all; the connection does it for a stream that its handler returns."""
        if not self._ended:
            self._ended = True
            if self._chunked:
                await self._sink.send(b"0\r\n\r\n")
