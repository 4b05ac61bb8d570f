"""UDP to the host's servers: a bounded number of connected sockets for each, every one of them for a short time.

A socket for each question would cost more than all the rest of forwarding it. What makes it hard to forge an answer stays: it
must come from the server's address, to the port and under the id of its question, and repeat that. The kernel draws the port,
at random, we draw the id and which of the ports asks; an answer to another one is none. A port that somebody has found
by trying is of no use for long: each asks so many questions, or lives so many seconds, and is never asked with again. And
there is no cache: a forged answer would reach the one who asked, and nobody after.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from netengine.dns import wire
from netengine.dns.alarms import Alarms
from netengine.dns.loop import Loop
from netengine.dns.upstream import destination, family_of

if TYPE_CHECKING:
    from netengine.dns.pending import Pending
    from netengine.dns.upstream import Upstream

MOST_PORTS = 64  # per server, that take new questions; a power of two
MOST_QUESTIONS = 128  # of one port
MOST_SECONDS = 5.0  # for which a port takes new questions
TOGETHER = 32  # questions that wait for each other, at most
_DRAWN = 4096  # bytes of randomness that are fetched at a time

Got = Callable[["Pending", "Upstream", bytes], None]
Failed = Callable[["Pending", "Upstream", str], None]


class Port:
    """A connected socket, and the questions that wait for an answer on it, by id."""

    __slots__ = ("_pool", "_slot", "left", "sock", "waiting")

    def __init__(self, pool: Pool, slot: int, sock: socket.socket) -> None:
        self._pool, self._slot, self.sock = pool, slot, sock
        self.waiting: dict[bytes, Pending] = {}
        self.left = MOST_QUESTIONS

    def ready(self, _events: int) -> None:
        try:
            response = self.sock.recv(wire.LARGEST)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.broken(error)
            return
        pending = self.waiting.get(response[:2])
        if pending is not None:
            self._pool.got(pending, self._pool.server, response)

    def send(self, packet: bytes) -> None:
        """For a question that waits here. If it cannot be sent, nobody else has an answer to expect here either."""
        try:
            self.sock.send(packet)
        except BlockingIOError:
            pass  # no room: as if lost on the way
        except OSError as error:
            self.broken(error)

    def broken(self, error: OSError) -> None:
        """The server, or the way to it, is not there (ICMP says so): true for all that wait."""
        self.retire()
        for pending in list(self.waiting.values()):
            self._pool.failed(pending, self._pool.server, str(error.strerror))

    def done(self, ident: bytes) -> None:
        """A question waits no longer."""
        if self.waiting.pop(ident, None) is not None and not self.waiting and self.left <= 0:
            self._close()

    def retire(self) -> None:
        """Take no new questions; close when the last answer has come, or is not waited for."""
        self._pool.leave(self._slot, self)
        self.left = 0
        if not self.waiting:
            self._close()

    def _close(self) -> None:
        if self.sock.fileno() >= 0:
            self._pool.loop.closing(self.sock.fileno())
            self.sock.close()


class Pool:
    """The ports from which one of the host's servers is asked."""

    def __init__(self, loop: Loop, ages: Ages, server: Upstream, port: int, got: Got, failed: Failed) -> None:
        self.loop, self.server, self.got, self.failed = loop, server, got, failed
        self._ages, self._port = ages, port
        self._ports: list[Port | None] = [None] * MOST_PORTS
        self._drawn, self._at = b"", 0
        self._unsent: list[tuple[Port, bytes]] = []  # with the id

    def ask(self, pending: Pending) -> tuple[Port, bytes]:
        """Send a question from one of the ports, under a new id: which ones. OSError if there is no way to the server.

        Questions go out together, at the end of the loop's turn or when there are some: a server on this host is woken once.
        """
        if len(self._unsent) >= TOGETHER:
            self._flush()
        while True:
            at = self._at
            if at >= len(self._drawn):
                self._drawn, at = os.urandom(_DRAWN), 0
            self._at = at + 4
            slot, ident = self._drawn[at] & (MOST_PORTS - 1), self._drawn[at + 2 : at + 4]
            port = self._ports[slot] or self._open(slot)
            if ident not in port.waiting:
                break
        port.waiting[ident] = pending
        port.left -= 1
        if port.left <= 0:
            port.retire()
        if not self._unsent:
            self.loop.last(self._flush)
        self._unsent.append((port, ident))
        return port, ident

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        for port, ident in unsent:
            pending = port.waiting.get(ident)
            if pending is not None:
                port.send(ident + pending.packet[2:])

    def _open(self, slot: int) -> Port:
        address = self.server.address
        sock = socket.socket(family_of(address), socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            sock.connect(destination(address, self._port))
            port = Port(self, slot, sock)
            self.loop.watch(sock.fileno(), port.ready)
        except OSError:
            sock.close()
            raise
        self._ports[slot] = port
        self._ages.put(port)
        return port

    def leave(self, slot: int, port: Port) -> None:
        """A port takes no more questions."""
        if self._ports[slot] is port:
            self._ports[slot] = None
            self._ages.drop(port)

    def renew(self) -> None:
        """Go on with new sockets: the way to the server, and our own address with it, may be another."""
        for port in self._ports:
            if port is not None:
                port.retire()


class Ages:
    """When ports have lived their time, of all servers."""

    def __init__(self, loop: Loop) -> None:
        self._alarms = Alarms[Port](MOST_SECONDS)
        loop.timed.append(self)

    def put(self, port: Port) -> None:
        self._alarms.put(port, monotonic())

    def drop(self, port: Port) -> None:
        self._alarms.drop(port)

    def due(self) -> float | None:
        return self._alarms.next()

    def expire(self, now: float) -> None:
        while (port := self._alarms.take(now)) is not None:
            port.retire()
