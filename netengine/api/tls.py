"""TLS in front of the HTTP server, for sockets that are not local: who wants to speak shows a certificate first.

TLS is ended here, and plain HTTP goes on over a socket pair. asyncio's own TLS transport would do, were it not that it closes
both directions when the client closes one: `docker run -i` and `docker exec -i` close theirs when input ends, and read on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import stat
from collections.abc import Callable
from typing import Any, TypeVar

from netengine.api.audit import remote
from netengine.config import Config
from netengine.errors import Invalid
from netengine.http import Server

log = logging.getLogger(__name__)
T = TypeVar("T")

HANDSHAKE_SECONDS = 5.0
"""From the connection to the end of the handshake, which a stranger could draw out."""
HANDSHAKES = 64
"""At once; more wait to be accepted. Whoever holds them all keeps others from TCP, five seconds each, and from nothing else."""
_LINGER_SECONDS = 2.0
_BLOCK = 64 << 10


def context(config: Config) -> ssl.SSLContext | None:
    """What the daemon shows and demands; None without tlsverify. Raises Invalid naming the file that cannot be used."""
    if not config.tlsverify:
        return None
    assert config.tlscacert and config.tlscert and config.tlskey  # config.py has seen to that
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.verify_mode = ssl.CERT_REQUIRED
    made.options |= ssl.OP_NO_RENEGOTIATION
    try:
        made.load_verify_locations(config.tlscacert)
    except (OSError, ssl.SSLError) as error:
        raise Invalid(
            f"tlscacert: {config.tlscacert} holds no certificates that can be read: {_words(error)}"
        ) from error
    try:
        mode = os.stat(config.tlskey).st_mode
        made.load_cert_chain(config.tlscert, config.tlskey, password="")
    except (OSError, ssl.SSLError) as error:
        raise Invalid(
            f"tlscert, tlskey: {config.tlscert} and {config.tlskey} are no certificate with its key (PEM, the key without a "
            f"pass phrase): {_words(error)}"
        ) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        log.warning("tlskey: %s can be read by others than its owner; chmod 0400 it", config.tlskey)
    return made


def _words(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    return error.strerror or str(error)


class TlsSite:
    """Accepts on a listening socket, ends TLS, and hands plain connections to the HTTP server."""

    def __init__(
        self,
        server: Server,
        listener: socket.socket,
        tls: ssl.SSLContext,
    ) -> None:
        self._server, self._listener, self._tls = server, listener, tls
        self._room = asyncio.Semaphore(HANDSHAKES)
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self._keep(self._accept())

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _keep(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._room.acquire()
            try:
                sock, address = await loop.sock_accept(self._listener)
            except OSError as error:  # out of descriptors, or the client left again
                self._room.release()
                log.warning("a connection could not be accepted: %s", error.strerror)
                await asyncio.sleep(0.1)
                continue
            self._keep(self._serve(sock, address))

    async def _serve(self, sock: socket.socket, address: Any) -> None:
        channel = _Channel(sock, self._tls)
        try:
            try:
                async with asyncio.timeout(HANDSHAKE_SECONDS):
                    certificate = await channel.handshake()
            except (ssl.SSLError, OSError, TimeoutError) as error:
                log.info("a connection from %s port %s was refused: %s", *address[:2], _refusal(error))
                return
            finally:
                self._room.release()
            await self._speak(channel, certificate, address)
        except OSError:
            pass  # the client left
        finally:
            sock.close()

    async def _speak(self, channel: _Channel, certificate: dict[str, Any], address: Any) -> None:
        loop = asyncio.get_running_loop()
        here, there = socket.socketpair()
        here.setblocking(False)
        there.setblocking(False)
        known = remote(certificate, address)
        try:
            await loop.connect_accepted_socket(lambda: self._server.connection(known), there)
            inwards = asyncio.ensure_future(channel.inwards(here))
            try:
                await channel.outwards(here)
            finally:
                inwards.cancel()
                await asyncio.gather(inwards, return_exceptions=True)
            await channel.close()
        finally:
            here.close()


def _refusal(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"no TLS handshake within {HANDSHAKE_SECONDS:g} s"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}"
    return _words(error) if isinstance(error, OSError) else str(error)


class _Channel:
    """One TLS connection over a non-blocking socket, each direction closed by itself."""

    def __init__(self, sock: socket.socket, tls: ssl.SSLContext) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = tls.wrap_bio(self._in, self._out, server_side=True)
        self._writing = asyncio.Lock()

    async def handshake(self) -> dict[str, Any]:
        """Until it is done; the client's certificate. Raises ssl.SSLError."""
        try:
            await self._until_done(self._tls.do_handshake)
        finally:
            await self._flush()  # the alert that tells the client why
        return dict(self._tls.getpeercert() or {})

    async def inwards(self, plain: socket.socket) -> None:
        """What the client says, until it closes its direction, or is gone."""
        loop = asyncio.get_running_loop()
        how = socket.SHUT_WR
        try:
            while data := await self._until_done(lambda: self._tls.read(_BLOCK)):
                await loop.sock_sendall(plain, data)
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            pass
        except OSError:  # reset, or what came is not what was sent: nobody is there to answer
            how = socket.SHUT_RDWR
        plain.shutdown(how)

    async def outwards(self, plain: socket.socket) -> None:
        """What the server says, until it closes the connection."""
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(plain, _BLOCK):
            self._tls.write(data)  # never waits: what it writes to is memory
            await self._flush()

    async def close(self) -> None:
        """Say that this was all."""
        loop = asyncio.get_running_loop()
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # it wants the client's close, too, and none of its data; this side's is written before it asks for that
        await self._flush()
        self._sock.shutdown(socket.SHUT_WR)
        # Closing with something unread would reset the connection, and the client might lose the end of the answer.
        try:
            async with asyncio.timeout(_LINGER_SECONDS):
                while await loop.sock_recv(self._sock, _BLOCK):
                    pass
        except (TimeoutError, OSError):
            pass

    async def _until_done(self, step: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                await self._flush()
                data = await loop.sock_recv(self._sock, _BLOCK)
                if data:
                    self._in.write(data)
                else:
                    self._in.write_eof()

    async def _flush(self) -> None:
        async with self._writing:
            if self._out.pending:
                await asyncio.get_running_loop().sock_sendall(self._sock, self._out.read())
