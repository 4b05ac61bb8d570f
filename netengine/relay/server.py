"""The relay's doors, and its end of the control socket. No bytes of a client pass here."""

from __future__ import annotations

import os
import socket
import sys
from time import monotonic

import msgspec

from netengine.dns.loop import Loop
from netengine.dns.privileges import may_control
from netengine.relay import protocol
from netengine.relay.datagrams import Datagrams
from netengine.relay.protocol import Door
from netengine.relay.streams import Room, Streams

LINGER_SECONDS = 0.1
"""How long it stays with no door: one that is closed is often followed by another."""

_FIRST_SECONDS = 10.0
"""How long it waits for its first door."""

_decoder = msgspec.json.Decoder(protocol.Request)
_encode = msgspec.json.encode


class Server:
    """Ends when it has had no door for a while: the daemon starts another when there is one again."""

    def __init__(self, loop: Loop, control: socket.socket) -> None:
        self.loop = loop
        self.doors: dict[tuple[str, str, int], tuple[Door, Streams | Datagrams]] = {}
        self._room = Room(loop)
        self._control = control
        self._empty_until: float | None = monotonic() + _FIRST_SECONDS
        control.setblocking(False)
        loop.watch(control.fileno(), self._accept)
        loop.timed.append(self)

    def due(self) -> float | None:
        return self._empty_until

    def expire(self, now: float) -> None:
        if not self.doors:
            self.loop.running = False

    # -- doors --------------------------------------------------------------------------------------------------------

    def open(self, door: Door, sock: socket.socket) -> None:
        self.close(door.key)
        sock.setblocking(False)
        served = (
            Streams(self.loop, door, sock, self._room) if door.protocol == "tcp" else Datagrams(self.loop, door, sock)
        )
        self.doors[door.key] = door, served
        self._empty_until = None

    def close(self, key: tuple[str, str, int]) -> None:
        found = self.doors.pop(key, None)
        if found is not None:
            found[1].close()
        if not self.doors:
            self._empty_until = monotonic() + LINGER_SECONDS

    def figures(self) -> tuple[int, int]:
        """(connections, flows of datagrams)."""
        flows = sum(len(served.flows) for _, served in self.doors.values() if isinstance(served, Datagrams))
        return self._room.pairs, flows

    # -- the control socket -------------------------------------------------------------------------------------------

    def _accept(self, _events: int) -> None:
        try:
            sock, _ = self._control.accept()
        except OSError:
            return
        if may_control(sock):
            _Connection(self, sock)


class _Connection:
    """Of a daemon. Its messages are few and small; a daemon that does not read its answers loses the connection."""

    def __init__(self, server: Server, sock: socket.socket) -> None:
        self._server, self._sock = server, sock
        sock.settimeout(1.0)
        server.loop.watch(sock.fileno(), self._receive)

    def _receive(self, _events: int) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._sock, protocol.LARGEST, protocol.MOST)
            if not data:
                self._close()
                return
            try:
                self._answer(_decoder.decode(data), descriptors)
            except (msgspec.MsgspecError, OSError) as error:
                self._send(protocol.Done(error=f"{error}"))
            finally:
                for fd in descriptors:
                    os.close(fd)
        except OSError as error:
            print(f"control connection closed: {error}", file=sys.stderr, flush=True)
            self._close()

    def _answer(self, request: protocol.Request, descriptors: list[int]) -> None:
        server = self._server
        match request:
            case protocol.Open(door=door):
                self._open([door], descriptors)
            case protocol.OpenAll(doors=doors):
                self._open(doors, descriptors)
            case protocol.Close() as which:
                server.close((which.address, which.protocol, which.port))
            case protocol.CloseAll(ports=ports):
                for key in ports:
                    server.close(key)
            case protocol.List(sockets=wanted):
                for door, served in server.doors.values():
                    self._send(protocol.Listed(door), [served.sock.fileno()] if wanted else [])
        connections, flows = server.figures()
        self._send(protocol.Done(pid=os.getpid(), connections=connections, flows=flows))

    def _open(self, doors: list[protocol.Door], descriptors: list[int]) -> None:
        if len(descriptors) != len(doors):
            raise OSError(f"{len(descriptors) or 'no'} sockets came with {len(doors)} doors")
        for door, descriptor in zip(doors, descriptors, strict=True):
            self._server.open(door, socket.socket(fileno=os.dup(descriptor)))

    def _send(self, answer: protocol.Answer, descriptors: list[int] | None = None) -> None:
        socket.send_fds(self._sock, [_encode(answer)], descriptors or [])

    def _close(self) -> None:
        self._server.loop.forget(self._sock.fileno())
        self._sock.close()
