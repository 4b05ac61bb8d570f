"""One question to one server over TCP, on a socket that is its own while it lasts: from the host, or from a sandbox.

Who is asked, and what an answer is good for, is the forwarder's business.
"""

from __future__ import annotations

import ctypes
import socket
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from netengine.dns import wire
from netengine.dns.loop import READ, WRITE, Loop
from netengine.dns.upstream import destination, family_of

if TYPE_CHECKING:
    from netengine.dns.upstream import Upstream

_libc = ctypes.CDLL(None, use_errno=True)
_UNCONNECTED = (ctypes.c_ubyte * 16)()  # struct sockaddr with AF_UNSPEC


class Exchange:
    """From the question to the answer, which `got` is told, or the failure, which `failed` is told, with the server."""

    def __init__(
        self,
        loop: Loop,
        server: Upstream,
        port: int,
        packet: bytes,
        got: Callable[[Upstream, bytes], None],
        failed: Callable[[Upstream, str], None],
        pool: Streams | None = None,
    ) -> None:
        """`pool`: where the socket is taken from and given back to; it must have a free one. OSError if nothing can be sent."""
        self._loop, self._server = loop, server
        self._got, self._failed, self._pool = got, failed, pool
        self._out = len(packet).to_bytes(2, "big") + packet
        self._in = bytearray()
        self._open = True
        family = family_of(server.address)
        kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
        self._sock = socket.socket(family, kind) if pool is None else pool.take(family)
        try:
            try:
                self._sock.connect(destination(server.address, port))
            except BlockingIOError:
                pass
            loop.watch(self._sock.fileno(), self._ready, WRITE)
        except OSError:
            self._let_go()
            raise

    def _ready(self, events: int) -> None:
        try:
            response = self._go_on()
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.close()
            self._failed(self._server, str(error.strerror))
            return
        if response is not None:
            self._got(self._server, response)

    def _go_on(self) -> bytes | None:
        if self._out:
            self._out = self._out[self._sock.send(self._out) :]
            if not self._out:
                self._loop.change(self._sock.fileno(), READ)
            return None
        data = self._sock.recv(wire.LARGEST)
        if not data:
            raise ConnectionResetError(104, "the server closed the connection")
        self._in += data
        if len(self._in) < 2 or len(self._in) < 2 + int.from_bytes(self._in[:2], "big"):
            return None
        return bytes(self._in[2 : 2 + int.from_bytes(self._in[:2], "big")])

    def close(self) -> None:
        if self._open:
            if self._pool is None:
                self._loop.closing(self._sock.fileno())
            else:
                self._loop.forget(self._sock.fileno())
            self._let_go()

    def _let_go(self) -> None:
        self._open = False
        if self._pool is None:
            self._sock.close()
        else:
            self._pool.give_back(self._sock)


class Streams:
    """TCP sockets that were opened in a sandbox, where no more can be opened from here: used in turn, one question each.

    A connected socket is made as new by connecting it to nothing (connect(2), AF_UNSPEC).
    """

    def __init__(self, sockets: list[socket.socket]) -> None:
        self._free = list(sockets)
        self._families = {sock.family for sock in sockets}
        self._waiting: dict[int, deque[Callable[[], bool]]] = {family: deque() for family in self._families}
        self.closed = False

    def has(self, family: int) -> bool:
        """Whether there are any of that family, free or not."""
        return family in self._families

    def is_free(self, family: int) -> bool:
        return any(sock.family == family for sock in self._free)

    def take(self, family: int) -> socket.socket:
        """A free one. OSError if there is none."""
        for sock in self._free:
            if sock.family == family:
                self._free.remove(sock)
                return sock
        raise OSError(11, "no free TCP socket in the sandbox")

    def wait(self, family: int, go: Callable[[], bool]) -> None:
        """Call `go` when one is free; it says whether it took it."""
        self._waiting[family].append(go)

    def give_back(self, sock: socket.socket) -> None:
        if self.closed:
            return
        _libc.connect(sock.fileno(), _UNCONNECTED, len(_UNCONNECTED))
        self._free.append(sock)
        waiting = self._waiting[sock.family]
        while waiting and self.is_free(sock.family):
            waiting.popleft()()
