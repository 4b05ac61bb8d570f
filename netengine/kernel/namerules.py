"""The rules that lead port 53 of a sandbox to its name server, as one netlink batch that only wants its two ports filled in.

Every sandbox gets the same four rules. libnftables reads them from text each time, with a new handle for the namespace, which
takes twice as long as all else that a sandbox's first network with names costs; so they are packed here. What they are to nft,
`nameservice.rules` says; that both are the same is tested. Pure but for `open_socket` and `load`.

Source: include/uapi/linux/netfilter/{nf_tables,nfnetlink}.h, net/netfilter/nfnetlink.c.
"""

from __future__ import annotations

import os
import socket
import struct
from functools import cache

from netengine import failpoints
from netengine.kernel.attributes import packed

TABLE, CHAIN = "netengine-dns", "output"
ADDRESS = "127.0.0.11"

_NETFILTER = 12  # NETLINK_NETFILTER
_NFTABLES, _BATCH_BEGIN, _BATCH_END = 10, 0x10, 0x11  # NFNL_SUBSYS_NFTABLES, NFNL_MSG_BATCH_*
_NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE = 0, 2, 3, 6
_REQUEST, _ACK, _EXCL, _CREATE, _APPEND = 0x1, 0x4, 0x200, 0x400, 0x800
_ERROR = 2
_NESTED = 0x8000
_HEADER, _NFGENMSG = struct.Struct("=IHHII"), struct.Struct("=BBH")
_PORT = b"\xfe\xed"
"""Stands for the name server's port in a rule, until that is known."""
_NETWORK, _TRANSPORT = 1, 2  # NFT_PAYLOAD_*_HEADER
_SOURCE, _DESTINATION = (12, 0), (16, 2)
"""Where the address is in an IPv4 header, and the port in that of UDP or TCP."""


def open_socket() -> socket.socket:
    """What `load` speaks to the namespace of the calling thread by, whichever thread calls it then."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, _NETFILTER)


def load(sock: socket.socket, udp: int, tcp: int, *, afresh: bool = False) -> None:
    """Make the table; `afresh`, in place of one that there is. Raises OSError, with EEXIST when there is one; nothing is
    changed then."""
    failpoints.refuse("nftables: send")
    sock.send(batch(udp, tcp, afresh=afresh))
    # It is carried out while it is sent: one answer for the whole, or those to the messages that were refused.
    while True:
        data = sock.recv(1 << 14)
        offset = 0
        while offset + _HEADER.size + 4 <= len(data):
            length, kind, *_ = _HEADER.unpack_from(data, offset)
            if kind == _ERROR:
                number = -struct.unpack_from("=i", data, offset + _HEADER.size)[0]
                if number:
                    raise OSError(number, os.strerror(number))
                return
            offset += max((length + 3) & ~3, _HEADER.size)


def batch(udp: int, tcp: int, *, afresh: bool = False) -> bytes:
    """What makes the table for these ports."""
    begin, away, head, rules, end = _parts()
    ports = (udp, udp, tcp, tcp)
    filled = (before + struct.pack("!H", port) + after for (before, after), port in zip(rules, ports, strict=True))
    return b"".join((begin, away if afresh else b"", head, *filled, end))


@cache
def _parts() -> tuple[bytes, bytes, bytes, list[tuple[bytes, bytes]], bytes]:
    """The beginning of the batch; what takes an older table away, and makes one first in case that there is none; the table; of
    each rule what is before the port and after it; the end."""
    begin = _message(_BATCH_BEGIN, 0, b"", family=socket.AF_UNSPEC, resource=_NFTABLES)
    end = _message(_BATCH_END, 0, b"", family=socket.AF_UNSPEC, resource=_NFTABLES)
    named = _text(1, TABLE)
    table = _message(_NFTABLES << 8 | _NEWTABLE, _CREATE | _EXCL, named + _number(2, 0))
    away = _message(_NFTABLES << 8 | _NEWTABLE, _CREATE, named + _number(2, 0))
    away += _message(_NFTABLES << 8 | _DELTABLE, 0, named)
    raw = _number(1, 3) + _number(2, -300)  # NF_INET_LOCAL_OUT, NF_IP_PRI_RAW
    chain = _text(1, TABLE) + _text(3, CHAIN) + packed(4 | _NESTED, raw) + _number(5, 1) + _text(7, "filter")
    rules = []
    for protocol, checksum_at in ((socket.IPPROTO_UDP, 6), (socket.IPPROTO_TCP, 16)):
        dns = struct.pack("!H", 53)
        for header, port, becomes in ((_DESTINATION, dns, _PORT), (_SOURCE, _PORT, dns)):
            last = protocol == socket.IPPROTO_TCP and header == _SOURCE
            before, found, after = _rule(protocol, header, port, becomes, checksum_at, _ACK if last else 0).partition(
                _PORT
            )
            assert found and _PORT not in after, "the port's place must be plain"
            rules.append((before, after))
    return begin, away, table + _message(_NFTABLES << 8 | _NEWCHAIN, _CREATE, chain), rules, end


def _rule(protocol: int, header: tuple[int, int], port: bytes, becomes: bytes, checksum_at: int, flags: int) -> bytes:
    """`ip daddr ADDRESS PROTOCOL dport PORT notrack PROTOCOL dport set BECOMES`, or saddr and sport."""
    address_at, port_at = header
    expressions = (
        _load(_NETWORK, address_at, 4) + _compare(socket.inet_aton(ADDRESS)),
        _expression("meta", _number(1, 1) + _number(2, 16)) + _compare(bytes([protocol])),  # NFT_META_L4PROTO
        _load(_TRANSPORT, port_at, 2) + _compare(port),
        _expression("notrack", b""),
        _expression("immediate", _number(1, 1) + packed(2 | _NESTED, packed(1, becomes))),
        _expression(
            "payload",
            _number(5, 1) + _number(2, _TRANSPORT) + _number(3, port_at) + _number(4, 2)
            + _number(6, 1) + _number(7, checksum_at) + _number(8, 0),  # NFT_PAYLOAD_CSUM_INET
        ),
    )  # fmt: skip
    body = _text(1, TABLE) + _text(2, CHAIN) + packed(4 | _NESTED, b"".join(expressions))
    return _message(_NFTABLES << 8 | _NEWRULE, _CREATE | _APPEND | flags, body)


def _load(base: int, offset: int, length: int) -> bytes:
    """Into register 1, some bytes of a header."""
    return _expression("payload", _number(1, 1) + _number(2, base) + _number(3, offset) + _number(4, length))


def _compare(value: bytes) -> bytes:
    """Register 1 is this, or the rule is left."""
    return _expression("cmp", _number(1, 1) + _number(2, 0) + packed(3 | _NESTED, packed(1, value)))


def _expression(name: str, data: bytes) -> bytes:
    return packed(1 | _NESTED, _text(1, name) + packed(2 | _NESTED, data))


def _text(kind: int, value: str) -> bytes:
    return packed(kind, value.encode() + b"\0")


def _number(kind: int, value: int) -> bytes:
    return packed(kind, struct.pack("!i", value))


def _message(kind: int, flags: int, body: bytes, family: int = socket.AF_INET, resource: int = 0) -> bytes:
    length = _HEADER.size + _NFGENMSG.size + len(body)
    head = _HEADER.pack(length, kind, _REQUEST | flags, 0, 0) + _NFGENMSG.pack(family, 0, socket.htons(resource))
    return head + body + bytes(-length % 4)
