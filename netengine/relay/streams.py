"""TCP through the relay: pairs of connections, bytes both ways, each direction's end passed on as it comes (half-close).

Bounded: so many pairs at a door and in all; where there is no room, the pair that has been idle longest makes some, or else new
connections wait in the kernel's queue. A direction that the other end does not take is not read on: no more than one chunk
of it is kept.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
from collections import OrderedDict
from time import monotonic

from netengine.dns.loop import READ, WRITE, Loop
from netengine.relay.protocol import Door

PER_DOOR, IN_ALL = 512, 2048
IDLE_SECONDS = 60.0
"""How long a pair must have been idle to make room for another."""

CHUNK = 1 << 15
_ACCEPTS = 16
_READS = 4
"""Chunks carried before others have their turn."""

_KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST
_TRIES = 5  # SYNs to a container that does not answer: some 30 s


class Room:
    """How many pairs there are in all doors, and which doors wait for one to go, or to have been idle for long enough."""

    def __init__(self, loop: Loop) -> None:
        self.pairs = 0
        self.waiting: set[Streams] = set()
        loop.timed.append(self)

    def due(self) -> float | None:
        return min((moment for s in self.waiting if (moment := s.idle_at()) is not None), default=None)

    def expire(self, now: float) -> None:
        for streams in [s for s in self.waiting if (moment := s.idle_at()) is not None and moment <= now]:
            streams.resume()

    def leave(self) -> None:
        self.pairs -= 1
        for streams in list(self.waiting):
            streams.resume()


class Streams:
    """A TCP door."""

    def __init__(self, loop: Loop, door: Door, sock: socket.socket, room: Room) -> None:
        self.loop, self.door, self.sock, self.room = loop, door, sock, room
        self.pairs: OrderedDict[_Pair, float] = OrderedDict()  # the longest idle in front
        self._watched = False
        self.resume()

    def idle_at(self) -> float | None:
        """When its longest idle pair will have been idle for long enough."""
        oldest = next(iter(self.pairs.values()), None)
        return None if oldest is None else oldest + IDLE_SECONDS

    def resume(self) -> None:
        """Take connections again."""
        self.room.waiting.discard(self)
        if not self._watched and self.sock.fileno() >= 0:
            self.loop.watch(self.sock.fileno(), self._accept)
            self._watched = True

    def _pause(self) -> None:
        self.room.waiting.add(self)
        if self._watched:
            self.loop.forget(self.sock.fileno())
            self._watched = False

    def _accept(self, _events: int) -> None:
        for _ in range(_ACCEPTS):
            if not self._has_room():
                self._pause()
                return
            try:
                client, _ = self.sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._pause()
                    return
                continue  # this one has gone already
            self._carry(client)

    def _has_room(self) -> bool:
        if len(self.pairs) < PER_DOOR and self.room.pairs < IN_ALL:
            return True
        oldest = next(iter(self.pairs), None)
        if oldest is None or monotonic() - self.pairs[oldest] < IDLE_SECONDS:
            return False
        if self._is_wanted():
            oldest.end(abort=True)
        return True

    def _is_wanted(self) -> bool:
        """Whether a connection waits: nobody makes room for nobody."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(0))

    def _carry(self, client: socket.socket) -> None:
        client.setblocking(False)
        family = socket.AF_INET6 if ":" in self.door.target else socket.AF_INET
        try:
            server = socket.socket(family, socket.SOCK_STREAM)
        except OSError:
            client.close()
            return
        server.setblocking(False)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, _TRIES)
        for end in (client, server):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for option, value in _KEEPALIVE:
                end.setsockopt(socket.IPPROTO_TCP, option, value)
        pair = _Pair(self, client, server)
        self.pairs[pair] = monotonic()
        self.room.pairs += 1
        pair.begin((self.door.target, self.door.target_port))

    def close(self) -> None:
        """Let go of the door; what flows through it ends."""
        self._pause()
        self.room.waiting.discard(self)
        self.sock.close()
        for pair in list(self.pairs):
            pair.end(abort=True)


class _Side:
    """One end of a pair: what is still to be written to it, and whether it has said its last."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.unsent = b""
        self.ended = False  # it sends no more
        self.told = False  # that the other end sends no more
        self.watched = 0


class _Pair:
    def __init__(self, streams: Streams, client: socket.socket, server: socket.socket) -> None:
        self._streams = streams
        self._client, self._server = _Side(client), _Side(server)
        self._connecting = True

    def begin(self, target: tuple[str, int]) -> None:
        code = self._server.sock.connect_ex(target)
        if code not in (0, errno.EINPROGRESS):
            self.end(abort=True)
            return
        self._wait()

    def end(self, *, abort: bool = False) -> None:
        """Close both ends; with `abort` they are told that something went wrong (RST)."""
        if self._streams.pairs.pop(self, None) is None:
            return
        for side in (self._client, self._server):
            self._watch(side, 0)
            if abort:
                side.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            side.sock.close()
        self._streams.room.leave()
        self._streams.resume()

    # -- waiting ------------------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        """Wait for what can be done next, and for nothing else: an end that is ready for ever would be served for ever."""
        if self._connecting:
            self._watch(self._server, WRITE)
            return
        for side, other in ((self._client, self._server), (self._server, self._client)):
            wanted = 0 if side.ended or other.unsent else READ
            self._watch(side, wanted | (WRITE if side.unsent else 0))

    def _watch(self, side: _Side, events: int) -> None:
        loop, fd = self._streams.loop, side.sock.fileno()
        if events == side.watched:
            return
        if not side.watched:
            loop.watch(fd, self._client_ready if side is self._client else self._server_ready, events)
        elif events:
            loop.change(fd, events)
        else:
            loop.forget(fd)
        side.watched = events

    # -- carrying -----------------------------------------------------------------------------------------------------

    def _client_ready(self, events: int) -> None:
        self._ready(self._client, self._server, events)

    def _server_ready(self, events: int) -> None:
        if self._connecting:
            if self._server.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.end(abort=True)
                return
            self._connecting = False
            self._wait()
            return
        self._ready(self._server, self._client, events)

    def _ready(self, side: _Side, other: _Side, events: int) -> None:
        self._streams.pairs[self] = monotonic()
        self._streams.pairs.move_to_end(self)
        try:
            if side.unsent:
                self._flush(side)
            if events & ~WRITE and not side.ended and not other.unsent:
                self._read(side, other)
            self._pass_ends_on()
        except OSError:
            self.end(abort=True)
            return
        if self._client.told and self._server.told:
            self.end()
        else:
            self._wait()

    def _read(self, side: _Side, other: _Side) -> None:
        for _ in range(_READS):
            try:
                data = side.sock.recv(CHUNK)
            except BlockingIOError:
                return
            if not data:
                side.ended = True
                return
            other.unsent = data
            self._flush(other)
            if other.unsent:
                return

    @staticmethod
    def _flush(side: _Side) -> None:
        try:
            side.unsent = side.unsent[side.sock.send(side.unsent) :]
        except BlockingIOError:
            pass

    def _pass_ends_on(self) -> None:
        for side, other in ((self._client, self._server), (self._server, self._client)):
            if side.ended and not other.unsent and not other.told:
                other.told = True
                other.sock.shutdown(socket.SHUT_WR)
