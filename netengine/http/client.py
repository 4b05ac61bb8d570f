"""The other end: calls to servers, over connections that are kept for the next call. How long one may take, the caller says.

For netengine's own services and etcd: no redirects, no proxies, no cookies, nothing compressed. What goes wrong is one of two:
there is no connection (NotConnected, with why), or there was one and no whole answer came (Disconnected); then the server may
have done what it was asked, or not.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import httptools

_READ = 64 << 10
_HEAD_LIMIT = 64 << 10
_TLS_CLOSE_SECONDS = 1.0  # that a server has to say that it is closed, too
_ADDRESS_SECONDS = 0.25  # before the next address of a name is tried beside the first: RFC 8305


class CallError(Exception):
    """The call has no answer."""


class NotConnected(CallError):
    """Nothing was asked. `cause` is the kernel's, the resolver's or TLS's reason."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class ConnectTimeout(TimeoutError):
    """Nothing was asked: the connection was not there in time."""


class Disconnected(CallError):
    """The connection ended before the whole answer was there, or what came is not HTTP."""


class Unanswered(Disconnected):
    """Not a byte of an answer came: a server that was started anew ends the connections that were kept, and a new one may do.
    All the same it may have done what it was asked."""


class Reply:
    """An answer, of which status and headers are there. Iterate over the pieces of its body as they come, or `read` all."""

    def __init__(self, connection: _Kept) -> None:
        self._connection = connection
        self.status = 0
        self.headers: dict[str, str] = {}
        """By their name in small letters."""
        self.whole = False
        """Whether the last byte has come."""
        self.keeps = False
        """Whether the connection can carry another call then."""
        self._headed = False
        self._pieces: deque[bytes] = deque()
        self._parser = httptools.HttpResponseParser(self)
        self._seen = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            while self._pieces:
                yield self._pieces.popleft()
            if self.whole:
                return
            await self._receive()

    async def read(self, limit: int) -> bytes | None:
        """All of it; None when it is more than `limit` bytes."""
        body = bytearray()
        async for piece in self:
            body += piece
            if len(body) > limit:
                return None
        return bytes(body)

    @property
    def begun(self) -> bool:
        """Whether anything of it has come."""
        return self._seen > 0

    def abort(self) -> None:
        """End the connection: whoever is reading gets Disconnected."""
        self._connection.writer.transport.abort()

    def info(self, name: str) -> Any:
        """What the transport knows of itself (asyncio.BaseTransport.get_extra_info)."""
        return self._connection.writer.get_extra_info(name)

    async def head(self) -> None:
        while not self._headed:
            await self._receive()
            if self._seen > _HEAD_LIMIT and not self._headed:
                raise Disconnected(f"an answer with more than {_HEAD_LIMIT} bytes of headers")

    async def _receive(self) -> None:
        try:
            data = await self._connection.reader.read(_READ)
        except OSError as error:  # TLS refusals among them: TLS 1.3 tells a client after the handshake
            raise Disconnected(_words(error)) from error
        if not data:
            if not self._headed or "content-length" in self.headers or "transfer-encoding" in self.headers:
                raise Disconnected("the server closed the connection before the end of its answer")
            self.whole, self.keeps = True, False  # its length was all that came
            return
        self._seen += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise Disconnected(f"what answers does not speak HTTP: {error}") from error

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._headed:
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200 and not self._headed:
            self.status, self._headed = status, True
            self.keeps = self._parser.should_keep_alive()
        elif not self._headed:
            self.headers.clear()  # 100 Continue and its like: the answer comes after it

    def on_body(self, piece: bytes) -> None:
        self._pieces.append(piece)

    def on_message_complete(self) -> None:
        if self._headed:
            self.whole = True

    def end(self) -> None:
        """The parser holds this object, and this object holds the parser."""
        del self._parser


class _Kept:
    """A connection to a server."""

    __slots__ = ("reader", "since", "writer")

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.since = 0.0

    async def send(self, data: bytes) -> None:
        try:
            self.writer.write(data)
            await self.writer.drain()
        except OSError as error:
            raise Disconnected(_words(error)) from error

    @property
    def usable(self) -> bool:
        return not self.reader.at_eof() and not self.writer.transport.is_closing() and self.reader.exception() is None


_Place = tuple[str, int, ssl.SSLContext | None, str]


class Client:
    """Connections that are not in use are kept for `keep_seconds`, by place, TLS context and name; 0 keeps none."""

    def __init__(self, keep_seconds: float = 45.0) -> None:
        self._keep_seconds = keep_seconds
        self._idle: dict[_Place, list[_Kept]] = {}
        self._tidying: asyncio.TimerHandle | None = None
        self._default: ssl.SSLContext | None = None
        self._closed = False

    @contextlib.asynccontextmanager
    async def call(
        self,
        method: str,
        url: str,
        body: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        server_name: str = "",
        connect_seconds: float | None = None,
    ) -> AsyncIterator[Reply]:
        """Ask http:// or https://HOST:PORT/PATH; the answer's head is there. `server_name` is who the certificate must name.

        Raises NotConnected, ConnectTimeout, Disconnected; reading the answer raises the last, too.
        """
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        host, port = parts.hostname or "", parts.port or (443 if secure else 80)
        context = (tls or self._system()) if secure else None
        place = (host, port, context, server_name)
        connection = self._kept(place) or await self._connect(place, connect_seconds)
        keeps = False
        reply = Reply(connection)
        try:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            try:
                await connection.send(_request(method, path, parts.netloc, headers or {}, body))
                await reply.head()
            except Disconnected as error:
                if not reply.begun and not isinstance(error.__cause__, ssl.SSLError):
                    raise Unanswered(str(error)) from error
                raise
            yield reply
            keeps = reply.whole and reply.keeps
        finally:
            reply.end()
            if keeps and not self._closed and self._keep_seconds:
                self._keep(place, connection)
            else:
                connection.writer.transport.abort()

    async def close(self) -> None:
        """Of the connections that are not in use; the others are not kept."""
        self._closed = True
        if self._tidying is not None:
            self._tidying.cancel()
        for connections in self._idle.values():
            for connection in connections:
                connection.writer.transport.abort()
        self._idle.clear()
        await asyncio.sleep(0)  # for the transports to say that they are closed

    def _system(self) -> ssl.SSLContext:
        """Trusts whom the host trusts."""
        if self._default is None:
            self._default = ssl.create_default_context()
        return self._default

    async def _connect(self, place: _Place, seconds: float | None) -> _Kept:
        host, port, context, name = place
        how: dict[str, Any] = {}
        if context is not None:
            how = {"ssl": context, "server_hostname": name or host, "ssl_shutdown_timeout": _TLS_CLOSE_SECONDS}
        try:
            async with asyncio.timeout(seconds) as limit:
                made = await asyncio.open_connection(host, port, happy_eyeballs_delay=_ADDRESS_SECONDS, **how)
        except TimeoutError:
            if limit.expired():
                raise ConnectTimeout(f"no connection within {seconds:g} s") from None
            raise NotConnected(TimeoutError("timed out")) from None  # the kernel's: ETIMEDOUT
        except OSError as error:
            raise NotConnected(error) from error
        return _Kept(*made)

    def _kept(self, place: _Place) -> _Kept | None:
        connections = self._idle.get(place, [])
        while connections:
            found = connections.pop()
            if found.usable:
                return found
            found.writer.transport.abort()
        return None

    def _keep(self, place: _Place, connection: _Kept) -> None:
        loop = asyncio.get_running_loop()
        connection.since = loop.time()
        self._idle.setdefault(place, []).append(connection)
        if self._tidying is None:
            self._tidying = loop.call_later(self._keep_seconds, self._tidy)

    def _tidy(self) -> None:
        """Let go of what was not used for long."""
        loop = asyncio.get_running_loop()
        oldest = loop.time() - self._keep_seconds
        for place, connections in list(self._idle.items()):
            for connection in [c for c in connections if c.since <= oldest or not c.usable]:
                connections.remove(connection)
                connection.writer.close()
            if not connections:
                del self._idle[place]
        self._tidying = loop.call_later(self._keep_seconds, self._tidy) if self._idle else None


def _request(method: str, path: str, host: str, headers: Mapping[str, str], body: bytes) -> bytes:
    text = "".join([f"{name}: {value}\r\n" for name, value in {"Host": host, **headers}.items()])
    if text.count("\r") != len(headers) + 1 or text.count("\n") != len(headers) + 1:
        raise ValueError(f"a header has a line break: {text[:200]!a}")
    length = f"Content-Length: {len(body)}\r\n" if body or method == "POST" else ""
    return f"{method} {path} HTTP/1.1\r\n{text}{length}\r\n".encode("latin-1") + body


def _words(error: OSError) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return error.strerror or str(error) or type(error).__name__
