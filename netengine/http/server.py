"""All connections of a server: where it listens, when one has been silent for too long, and the end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from netengine.http import heads
from netengine.http.connection import Connection
from netengine.http.messages import Answer, Request
from netengine.http.transport import Listener

_SWEEP_SECONDS = 5.0
_BACKLOG = 1024
HEAD_LIMIT = 64 << 10
"""Bytes of a request's first line and headers."""


Refused = Callable[[Mapping[str, str] | None, Any, str], None]
"""Told of what was no request: what is known of a remote peer, the socket, and why it was refused."""


class Server:
    """`answer` gets every request; `headers` go with every answer; `app` is for the handlers (Request.app)."""

    def __init__(
        self,
        answer: Callable[[Request], Awaitable[Answer]],
        *,
        app: object = None,
        headers: Mapping[str, str] | None = None,
        head_limit: int = HEAD_LIMIT,
        refused: Refused = lambda remote, sock, why: None,
    ) -> None:
        self.app = app
        self.head_limit = head_limit
        self.common = heads.fields(headers or {})
        """The headers of every answer, encoded."""
        self.stopping = False
        self._answer = answer
        self._refused = refused
        self._connections: set[Connection] = set()
        self._listening: list[Listener] = []
        self._sweeping: asyncio.TimerHandle | None = None

    def connection(self, remote: Mapping[str, str] | None = None) -> Connection:
        """The protocol of one connection; `remote` says who is at the other end, for what is not local."""
        return Connection(self, remote)

    async def listen(self, sock: socket.socket) -> None:
        """Serve who connects to a stream socket. From here on it is the server's."""
        sock.listen(_BACKLOG)
        self._listening.append(Listener(sock, self.connection))

    async def close(self, seconds: float) -> None:
        """Accept nobody, end what is idle and what streams, and give the rest `seconds` to be done."""
        self.stopping = True
        for listening in self._listening:
            listening.close()
        for connection in list(self._connections):
            connection.stop()
        under_way = [c.task for c in self._connections if c.task is not None]
        if under_way:
            _, late = await asyncio.wait(under_way, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for connection in list(self._connections):
            connection.close()
        await asyncio.sleep(0)  # for the transports to say that they are closed
        for connection in list(self._connections):
            connection.abort()
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None

    # What connections call.

    async def answer(self, request: Request) -> Answer:
        return await self._answer(request)

    def refused(self, remote: Mapping[str, str] | None, sock: Any, why: str) -> None:
        self._refused(remote, sock, why)

    def opened(self, connection: Connection) -> None:
        if self.stopping:
            connection.close()
        self._connections.add(connection)
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep)

    def closed(self, connection: Connection) -> None:
        self._connections.discard(connection)

    def _sweep(self) -> None:
        """One look at all instead of a timer for each."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in list(self._connections):
            if connection.deadline < now:
                connection.abort()
        self._sweeping = loop.call_later(_SWEEP_SECONDS, self._sweep) if self._connections else None
