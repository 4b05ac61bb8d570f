"""The body of a request, handed from the connection to the handler with back-pressure: what is not read waits at the client."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import AsyncIterator
from typing import Protocol

_HIGH, _LOW = 256 << 10, 64 << 10
"""Bytes held: above, the client is not read; below, it is again."""


class Source(Protocol):
    """Where the bytes come from; a connection."""

    def pause(self) -> None:
        """Read no more for now."""

    def resume(self) -> None:
        """Read on."""

    def ask_for_body(self) -> None:
        """The handler wants it now: a client that waits for leave is told to go on (RFC 9110, 10.1.1)."""


class Body:
    """An async iterator of the pieces, as they come. Reading raises ConnectionError when the client leaves before the end."""

    __slots__ = ("_error", "_held", "_pieces", "_source", "_waiter", "_wanted", "complete", "length")

    def __init__(self, source: Source | None, length: int | None) -> None:
        self.length = length
        """Bytes, as the client says; None when it does not know yet."""
        self.complete = False
        """Whether the last byte has come."""
        self._source = source
        self._pieces: collections.deque[bytes] = collections.deque()
        self._held = 0
        self._wanted = True
        self._error: str | None = None
        self._waiter: asyncio.Future[None] | None = None

    @classmethod
    def empty(cls) -> Body:
        made = cls(None, 0)
        made.complete = True
        return made

    async def read(self) -> bytes:
        """The next piece; empty at the end."""
        while not self._pieces:
            if self._error is not None:
                raise ConnectionResetError(self._error)
            if self.complete:
                return b""
            if self._source is not None:
                self._source.ask_for_body()
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        piece = self._pieces.popleft()
        self._held -= len(piece)
        if self._held <= _LOW and self._source is not None and not self.complete:
            self._source.resume()
        return piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self.read():
            yield piece

    async def whole(self, limit: int) -> bytes:
        """All of it, or what has come when it is more than `limit` bytes."""
        if self.complete and self._error is None and len(self._pieces) <= 1:
            self._held = 0
            return self._pieces.popleft() if self._pieces else b""
        pieces, size = [], 0
        while size <= limit and (piece := await self.read()):
            pieces.append(piece)
            size += len(piece)
        return b"".join(pieces)

    # What the connection calls.

    def feed(self, piece: bytes) -> None:
        if not self._wanted:
            return
        self._pieces.append(piece)
        self._held += len(piece)
        if self._held >= _HIGH and self._source is not None:
            self._source.pause()
        self._wake()

    def end(self) -> None:
        self.complete = True
        self._wake()

    def fail(self, why: str) -> None:
        """There will be no more of it."""
        if not self.complete:
            self._error = why
            self._wake()

    def discard(self) -> None:
        """Nobody will read what is left."""
        self._wanted = False
        self._pieces.clear()
        self._held = 0
        if self._source is not None and not self.complete:
            self._source.resume()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
