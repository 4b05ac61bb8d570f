"""The listening end of the control service: TCP, then TLS, then HTTP, with bounds against strangers who take up room.

What is bounded: connections in all and from one address; the time of a handshake; the time that a connection may go without
a whole request. Certificates that TLS refuses are logged here. What is asked over a connection is control.py's.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from ipaddress import ip_address, ip_network
from typing import Any

from netengine.errors import Conflict, Invalid

log = logging.getLogger(__name__)

CONNECTIONS = 1024
FROM_ONE_ADDRESS = 64
"""Of those that have shown no certificate. Hosts behind one address share it; an IPv6 network of 64 bits counts as one."""
HANDSHAKE_SECONDS = 5.0
IDLE_SECONDS = 60.0
"""After which a connection is closed that has nothing to say, or says it too slowly."""
FIRST_SECONDS = 10.0
"""The same, before its first request."""
_BACKLOG = 256
_SAY_AT_MOST = 10  # refusals logged a minute, the rest is counted


class Visit(asyncio.Protocol):
    """A connection: what comes goes on to `inner`, and it is ended when it goes for too long without a whole request."""

    def __init__(self, inner: asyncio.Protocol) -> None:
        self.inner = inner
        self._transport: asyncio.Transport | None = None
        self._ended = asyncio.Event()
        self._calls = 0  # requests that are being handled
        self._deadline = asyncio.get_running_loop().time() + FIRST_SECONDS

    def begin(self) -> None:
        """A request has come."""
        self._calls += 1

    def end(self) -> None:
        """It is answered."""
        self._calls -= 1
        self._deadline = asyncio.get_running_loop().time() + IDLE_SECONDS

    async def watch(self) -> None:
        """Until the connection has ended."""
        loop = asyncio.get_running_loop()
        try:
            while not self._ended.is_set():
                left = self._deadline - loop.time() if not self._calls else IDLE_SECONDS
                if left <= 0:
                    return
                try:
                    async with asyncio.timeout(left):
                        await self._ended.wait()
                except TimeoutError:
                    pass
        finally:
            if self._transport is not None and not self._ended.is_set():
                self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self.inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self.inner.eof_received()

    def pause_writing(self) -> None:
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        self.inner.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self._ended.set()
        self.inner.connection_lost(error)


class Doors:
    """`context` may be replaced at any time: connections made from then on are shown the new certificate."""

    def __init__(self, factory: Callable[[], asyncio.Protocol], context: ssl.SSLContext) -> None:
        self.context = context
        self.port = 0
        self._factory = factory
        self._listeners: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._visits: dict[asyncio.Protocol, Visit] = {}
        self._open = 0
        self._from: Counter[str] = Counter()
        self._said = 0
        self._unsaid = 0

    def open(self, address: str, port: int) -> None:
        """`0.0.0.0` and `::` are every address of both families. Raises Conflict, Invalid."""
        if address in ("0.0.0.0", "::", ""):
            try:
                made = self._listen("::", port, both=True)
            except (Invalid, OSError):  # a host without IPv6
                made = self._listen("0.0.0.0", port)
        else:
            made = self._listen(address, port)
        self.port = made.getsockname()[1]
        self._listeners.append(made)
        self._keep(self._accept(made))
        self._keep(self._forget())

    def _listen(self, address: str, port: int, both: bool = False) -> socket.socket:
        try:
            family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
        except ValueError:
            raise Invalid(f"the listen address {address[:80]!a} is no IP address") from None
        try:
            made = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            raise Invalid(f"cannot listen on {address}: {error.strerror}") from error
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if both else 1)
            made.bind((address, port))
            made.listen(_BACKLOG)
        except OSError as error:
            made.close()
            where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
            if error.errno == errno.EADDRINUSE:
                raise Conflict(f"cannot listen on {where}: the port is in use (see `ss -ltnp`)") from error
            raise Invalid(f"cannot listen on {where}: {error.strerror}") from error
        made.setblocking(False)
        return made

    @contextlib.contextmanager
    def request(self, protocol: asyncio.Protocol | None) -> Iterator[None]:
        """While a request of the connection of this (inner) protocol is handled: it is not idle."""
        visit = self._visits.get(protocol) if protocol is not None else None
        if visit is None:
            yield
            return
        visit.begin()
        try:
            yield
        finally:
            visit.end()

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for listener in self._listeners:
            listener.close()
        self._listeners = []

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, name = await loop.sock_accept(listener)
            except OSError as error:  # out of descriptors, or the client left again
                log.warning("a connection could not be accepted: %s", error.strerror)
                await asyncio.sleep(0.1)
                continue
            source = _source(name[0])
            if self._open >= CONNECTIONS or self._from[source] >= FROM_ONE_ADDRESS:
                sock.close()
                self._say(f"a connection from {name[0]}: too many are open")
                continue
            self._open += 1
            self._from[source] += 1
            self._keep(self._serve(sock, name[0], source))

    async def _serve(self, sock: socket.socket, address: str, source: str) -> None:
        """From the handshake to the end of the connection."""
        visit: Visit | None = None
        is_stranger = True
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            visit = Visit(self._factory())
            self._visits[visit.inner] = visit
            try:
                transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
                    lambda: visit,
                    sock,
                    ssl=self.context,
                    ssl_handshake_timeout=HANDSHAKE_SECONDS,
                    ssl_shutdown_timeout=2,
                )
            except (ssl.SSLError, OSError, TimeoutError) as error:
                sock.close()
                self._say(f"a connection from {address}: {_words(error)}")
                return
            if transport.get_extra_info("peercert"):
                is_stranger = False  # all the nodes of a cluster may be in one IPv6 network
                self._leaves(source)
            await visit.watch()
        finally:
            if visit is not None:
                del self._visits[visit.inner]
            self._open -= 1
            if is_stranger:
                self._leaves(source)

    def _leaves(self, source: str) -> None:
        self._from[source] -= 1
        if not self._from[source]:
            del self._from[source]

    async def _forget(self) -> None:
        """What was refused is told up to a number a minute."""
        while True:
            await asyncio.sleep(60)
            if self._unsaid:
                log.warning("control port: %d more refusals in the last minute", self._unsaid)
            self._said = self._unsaid = 0

    def _say(self, words: str) -> None:
        if self._said < _SAY_AT_MOST:
            self._said += 1
            log.warning("refused %s", words)
        else:
            self._unsaid += 1


def _source(address: str) -> str:
    plain = ip_address(address.partition("%")[0])
    if plain.version == 4:
        return str(plain)
    if plain.ipv4_mapped is not None:
        return str(plain.ipv4_mapped)
    return str(ip_network((plain, 64), strict=False))


def _words(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    if isinstance(error, TimeoutError | ConnectionAbortedError):
        return f"no TLS handshake within {HANDSHAKE_SECONDS:g} s"
    return str(error) or type(error).__name__
