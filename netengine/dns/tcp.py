"""Questions over TCP (RFC 7766): many on one connection, answered as they come, with limits on everything."""

from __future__ import annotations

import socket
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from netengine.dns import wire
from netengine.dns.loop import READ, WRITE, Loop
from netengine.dns.pending import Asker

if TYPE_CHECKING:
    from netengine.dns.server import Sandbox

MOST_CONNECTIONS = 64  # per sandbox; one more closes the one idle for longest
MOST_PENDING = 128  # questions of one connection that are under way; then it is not read
IDLE_SECONDS = 15.0
PAUSE = 0.5  # seconds for which nobody is let in after accept(2) failed: the socket would be ready again at once
MOST_UNSENT = 1 << 18  # bytes; a client that does not read its answers is not read either
BATCH = 32  # questions of one connection that are answered at a time
_CHUNK = 1 << 16

Resolve = Callable[["Sandbox", bytes, Asker], bool]  # False: nobody will answer


class _Question(Asker):
    limit = wire.LARGEST
    stream = True

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    def answer(self, reply: bytes) -> None:
        self._connection.answer(reply)


class _Connection:
    def __init__(self, listener: Listener, sock: socket.socket) -> None:
        self._listener, self._sock = listener, sock
        self._received = bytearray()
        self._unsent = bytearray()
        self._pending = 0
        self._events = READ
        self._ended = False  # the client has sent all it will
        self.closed = False
        listener.loop.watch(sock.fileno(), self._ready)

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._send()
        if events & ~WRITE and not self.closed and self._events & READ:
            self._receive()
        elif not self.closed and not self._events & READ and events & ~(READ | WRITE):
            self.close()  # hung up while it was not read
        self._go_on()

    def _receive(self) -> None:
        try:
            data = self._sock.recv(_CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        self._received += data
        self._ended = self._ended or not data

    def _go_on(self) -> None:
        """Answer what has come, as far as the limits let; then wait for what fits the state."""
        asked = 0
        while not self.closed and self._has_question() and not self._is_full() and asked < BATCH:
            size = int.from_bytes(self._received[:2], "big")
            packet = bytes(self._received[2 : size + 2])
            del self._received[: size + 2]
            asked += 1
            self._pending += 1
            self._listener.touch(self)
            if not self._listener.resolve(self._listener.sandbox, packet, _Question(self)):
                self._pending -= 1  # a response, or no DNS at all: nothing is owed for it
                if len(packet) < wire.HEADER:
                    self.close()
        if self._unsent and not self.closed:
            self._send()
        if self.closed:
            return
        if self._ended and not self._unsent and not self._pending and not self._has_question():
            self.close()
            return
        more = self._has_question() and not self._is_full()
        wants_read = not self._ended and not self._is_full() and len(self._received) <= _CHUNK * 2
        self._wait((READ if wants_read else 0) | (WRITE if self._unsent or more else 0))

    def _has_question(self) -> bool:
        return len(self._received) >= 2 and len(self._received) >= 2 + int.from_bytes(self._received[:2], "big")

    def _is_full(self) -> bool:
        return self._pending >= MOST_PENDING or len(self._unsent) >= MOST_UNSENT

    def answer(self, reply: bytes) -> None:
        if self.closed:
            return
        self._pending -= 1
        self._unsent += len(reply).to_bytes(2, "big") + reply
        self._wait(self._events | WRITE)  # sent, with others, when the loop comes round

    def _send(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self._sock.send(self._unsent)]
                self._listener.touch(self)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self.close()

    def _wait(self, events: int) -> None:
        if events != self._events:
            self._events = events
            self._listener.loop.change(self._sock.fileno(), events)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._listener.loop.forget(self._sock.fileno())
            self._listener.forget(self)
            self._sock.close()


class Idle:
    """The connections of all sandboxes in the order in which their idle time ends. One for the loop to look at."""

    def __init__(self, loop: Loop) -> None:
        self.connections: OrderedDict[_Connection, float] = OrderedDict()
        loop.timed.append(self)

    def touch(self, connection: _Connection) -> None:
        """Its idle time begins anew."""
        self.connections[connection] = monotonic() + IDLE_SECONDS
        self.connections.move_to_end(connection)

    def due(self) -> float | None:
        return next(iter(self.connections.values()), None)

    def expire(self, now: float) -> None:
        while self.connections and next(iter(self.connections.values())) <= now:
            next(iter(self.connections)).close()


class Listener:
    """A sandbox's listening socket and its connections, the one idle for longest in front."""

    def __init__(self, loop: Loop, sandbox: Sandbox, resolve: Resolve, idle: Idle) -> None:
        self.loop, self.sandbox, self.resolve, self._idle = loop, sandbox, resolve, idle
        self.connections: OrderedDict[_Connection, None] = OrderedDict()
        self._closed = False
        self._listen()

    def _listen(self) -> None:
        if not self._closed:
            self.loop.watch(self.sandbox.tcp.fileno(), self._accept)

    def _accept(self, _events: int) -> None:
        try:
            sock, _ = self.sandbox.tcp.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # it has gone already
        except OSError:
            # Out of descriptors or memory, and whoever knocks stays at the door: not to be looked at for a while.
            self._make_room(0)
            self.loop.forget(self.sandbox.tcp.fileno())
            self.loop.later(PAUSE, self._listen)
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._make_room(MOST_CONNECTIONS - 1)
        self.touch(_Connection(self, sock))

    def _make_room(self, most: int) -> None:
        while len(self.connections) > most:
            next(iter(self.connections)).close()

    def touch(self, connection: _Connection) -> None:
        """Something happened on a connection: its idle time begins anew."""
        if not connection.closed:
            self.connections[connection] = None
            self.connections.move_to_end(connection)
            self._idle.touch(connection)

    def forget(self, connection: _Connection) -> None:
        self.connections.pop(connection, None)
        self._idle.connections.pop(connection, None)

    def close(self) -> None:
        """Close all; the listening socket itself is the sandbox's."""
        self._closed = True
        self.loop.forget(self.sandbox.tcp.fileno())
        self._make_room(0)
