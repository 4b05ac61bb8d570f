"""Forgetting tracked UDP flows to a port of the host.

A steady sender's flow is tracked from its first datagram on, with the translation that was in force then, or none: it would go
past a port that is published afterwards, or on to a container that is gone, for as long as it keeps sending.

Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h. pyroute2's conntrack messages cannot ask the kernel to filter.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Mapping

from netengine.kernel.attributes import attributes, packed
from netengine.kernel.descriptors import moved_up
from netengine.kernel.resources import Family

_NETLINK_NETFILTER = 12
_GET, _DELETE = 0x101, 0x102  # NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET, _DELETE
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_NESTED = 0x8000
_TUPLE_ORIG, _ID, _FILTER = 1, 12, 25  # CTA_*
_TUPLE_PROTO, _PROTO_NUM, _PROTO_DST_PORT = 2, 1, 3
_FILTER_ORIG_FLAGS, _FILTER_REPLY_FLAGS = 1, 2
_BY_PROTO_NUM, _BY_DST_PORT = 1 << 3, 1 << 5  # CTA_FILTER_FLAG, kernel 5.8 and newer; older ones list everything
_HEADER = struct.Struct("=IHHII")
_NFGENMSG: Mapping[Family, bytes] = {
    "ip": struct.pack("=BBH", socket.AF_INET, 0, 0),
    "ip6": struct.pack("=BBH", socket.AF_INET6, 0, 0),
}


def _destination(tuple_: bytes) -> tuple[int, int]:
    """(protocol number, destination port) of a CTA_TUPLE_ORIG."""
    proto = dict(attributes(dict(attributes(tuple_)).get(_TUPLE_PROTO, b"")))
    number = proto.get(_PROTO_NUM, b"\0")[0]
    port = int.from_bytes(proto.get(_PROTO_DST_PORT, b"\0\0")[:2], "big")
    return number, port


class Conntrack:
    """The connection tracking table of the network namespace of the thread that creates it. Not thread-safe."""

    def __init__(self) -> None:
        self._socket = _open()
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def forget_udp(self, ports: Iterable[int], family: Family = "ip") -> int:
        """Delete the tracked flows whose first datagram went to one of these UDP ports; answer how many there were."""
        doomed = self._flows_to(set(ports), family)
        for tuple_, identity in doomed:
            body = packed(_TUPLE_ORIG | _NESTED, tuple_) + (packed(_ID, identity) if identity else b"")
            for _ in self._ask(_DELETE, _REQUEST | _ACK, body, family):
                pass
        return len(doomed)

    def _flows_to(self, ports: set[int], family: Family) -> list[tuple[bytes, bytes]]:
        """One listing whatever the number of ports: each walks the whole hash table, 10 ms of it on an idle host."""
        proto = packed(_PROTO_NUM, bytes([socket.IPPROTO_UDP]))
        flags = _BY_PROTO_NUM
        if len(ports) == 1:
            proto += packed(_PROTO_DST_PORT, next(iter(ports)).to_bytes(2, "big"))
            flags |= _BY_DST_PORT
        wanted = packed(_FILTER_ORIG_FLAGS, struct.pack("=I", flags))
        wanted += packed(_FILTER_REPLY_FLAGS, struct.pack("=I", 0))
        body = packed(_TUPLE_ORIG | _NESTED, packed(_TUPLE_PROTO | _NESTED, proto))
        out = []
        for entry in self._ask(_GET, _REQUEST | _DUMP, body + packed(_FILTER | _NESTED, wanted), family):
            found = dict(attributes(entry))
            tuple_ = found.get(_TUPLE_ORIG, b"")
            protocol, port = _destination(tuple_)
            if protocol == socket.IPPROTO_UDP and port in ports:
                out.append((tuple_, found.get(_ID, b"")))
        return out

    def _ask(self, kind: int, flags: int, body: bytes, family: Family) -> list[bytes]:
        """The attributes of each message of the answer. A flow that is gone already is no error. Raises OSError when answers
        were lost (ENOBUFS); by a new socket then, since a listing that broke off would have the old one refuse every other."""
        try:
            return self._answers(kind, flags, body, family)
        except OSError:
            self._socket.close()
            self._socket = _open()
            raise

    def _answers(self, kind: int, flags: int, body: bytes, family: Family) -> list[bytes]:
        self._sequence += 1
        head = _NFGENMSG[family]
        length = _HEADER.size + len(head) + len(body)
        self._socket.send(_HEADER.pack(length, kind, flags, self._sequence, 0) + head + body)
        out: list[bytes] = []
        while True:
            data = self._socket.recv(1 << 18)
            offset = 0
            while offset + _HEADER.size <= len(data):
                size, answer, _, sequence, _ = _HEADER.unpack_from(data, offset)
                if sequence == self._sequence and answer in (_ERROR, _DONE):
                    return out
                if sequence == self._sequence:
                    out.append(data[offset + _HEADER.size + len(head) : offset + size])
                offset += (size + 3) & ~3


def _open() -> socket.socket:
    made = moved_up(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER))
    made.bind((0, 0))
    return made
