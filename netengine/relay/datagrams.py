"""UDP through the relay: for each client a socket of its own towards the container, so that answers find their way back.

Bounded: a flow ends when nothing has come either way for a while, and the longest idle one ends when there are too many. An
answer leaves from the very address that the client had asked.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections import OrderedDict
from time import monotonic
from typing import Any

from netengine.dns.loop import Loop
from netengine.relay.protocol import Door

PER_DOOR = 512
IDLE_SECONDS = 90.0
_BATCH = 64
_LARGEST = 65535
_PKTINFO = struct.Struct("=16sI")  # struct in6_pktinfo: address, interface index

Peer = tuple[Any, ...]
"""An IPv6 socket address: host, port, flow information, scope."""


class Datagrams:
    """A UDP door. Its deadlines are those of its flows (`due`, `expire`)."""

    def __init__(self, loop: Loop, door: Door, sock: socket.socket) -> None:
        self.loop, self.door, self.sock = loop, door, sock
        self.flows: OrderedDict[tuple[Peer, bytes], _Flow] = OrderedDict()  # the longest idle in front
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        loop.watch(sock.fileno(), self._receive)
        loop.timed.append(self)

    def due(self) -> float | None:
        oldest = next(iter(self.flows.values()), None)
        return None if oldest is None else oldest.last + IDLE_SECONDS

    def expire(self, now: float) -> None:
        while (oldest := next(iter(self.flows.values()), None)) is not None and oldest.last + IDLE_SECONDS <= now:
            oldest.end()

    def _receive(self, _events: int) -> None:
        for _ in range(_BATCH):
            try:
                data, ancillary, _, peer = self.sock.recvmsg(_LARGEST, socket.CMSG_SPACE(_PKTINFO.size))
            except BlockingIOError:
                return
            except OSError:
                continue  # what became of an answer, an ICMP error say
            asked = next((value for _, kind, value in ancillary if kind == socket.IPV6_PKTINFO), b"")
            flow = self.flows.get((peer, asked)) or self._begin(peer, asked)
            if flow is not None:
                flow.forward(data)

    def _begin(self, peer: Peer, asked: bytes) -> _Flow | None:
        if len(self.flows) >= PER_DOOR:
            next(iter(self.flows.values())).end()
        family = socket.AF_INET6 if ":" in self.door.target else socket.AF_INET
        try:
            there = socket.socket(family, socket.SOCK_DGRAM)
        except OSError:
            return None
        there.setblocking(False)
        if there.connect_ex((self.door.target, self.door.target_port)):
            there.close()
            return None
        flow = self.flows[peer, asked] = _Flow(self, peer, asked, there)
        return flow

    def close(self) -> None:
        """Let go of the door and its flows."""
        self.loop.timed.remove(self)
        self.loop.forget(self.sock.fileno())
        self.sock.close()
        for flow in list(self.flows.values()):
            flow.end()


class _Flow:
    def __init__(self, datagrams: Datagrams, peer: Peer, asked: bytes, there: socket.socket) -> None:
        self._datagrams, self._peer, self._asked, self._there = datagrams, peer, asked, there
        self.last = monotonic()
        datagrams.loop.watch(there.fileno(), self._answer)

    def _touch(self) -> None:
        self.last = monotonic()
        self._datagrams.flows.move_to_end((self._peer, self._asked))

    def forward(self, data: bytes) -> None:
        self._touch()
        try:
            self._there.send(data)
        except OSError:
            pass  # lost, as datagrams may be; ECONNREFUSED is about an earlier one

    def _answer(self, _events: int) -> None:
        self._touch()
        for _ in range(_BATCH):
            try:
                data = self._there.recv(_LARGEST)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ECONNREFUSED:
                    self.end()
                return
            self._send(data)

    def _send(self, data: bytes) -> None:
        origin = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, self._from())] if self._asked else []
        try:
            self._datagrams.sock.sendmsg([data], origin, 0, self._peer)
        except OSError:
            pass  # the client is gone, or its queue is full

    def _from(self) -> bytes:
        """The address that was asked; its interface only where the address alone does not say."""
        address, index = _PKTINFO.unpack(self._asked)
        link_local = address[0] == 0xFE and address[1] & 0xC0 == 0x80
        return _PKTINFO.pack(address, index if link_local else 0)

    def end(self) -> None:
        if self._datagrams.flows.pop((self._peer, self._asked), None) is not None:
            self._datagrams.loop.forget(self._there.fileno())
            self._there.close()
