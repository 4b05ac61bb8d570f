"""The rules that lead port 53 of a sandbox to its name server, as one netlink batch that only wants its two ports filled in.

Every sandbox gets the same four rules. libnftables reads them from text each time, with a new handle for the namespace, which
takes twice as long as all else that a sandbox's first network with names costs; so they are packed here. What they are to nft,
`nameservice.rules` says; that both are the same is tested. Pure but for `load`.

Source: include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import socket
import struct
from functools import cache

from netengine import failpoints
from netengine.kernel import nfbatch
from netengine.kernel.attributes import packed
from netengine.kernel.nfbatch import ACK, APPEND, CREATE, EXCL, NESTED, carry_out, message, number, text

TABLE, CHAIN = "netengine-dns", "output"
ADDRESS = "127.0.0.11"

_NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE = 0, 2, 3, 6
_PORT = b"\xfe\xed"
"""Stands for the name server's port in a rule, until that is known."""
_NETWORK, _TRANSPORT = 1, 2  # NFT_PAYLOAD_*_HEADER
_SOURCE, _DESTINATION = (12, 0), (16, 2)
"""Where the address is in an IPv4 header, and the port in that of UDP or TCP."""


def load(sock: socket.socket, udp: int, tcp: int, *, afresh: bool = False) -> None:
    """Make the table by a socket of `nfbatch`; `afresh`, in place of one that there is. Raises OSError, with EEXIST when there
    is one; nothing is changed then."""
    failpoints.refuse("nftables: send")
    carry_out(sock, batch(udp, tcp, afresh=afresh))


def batch(udp: int, tcp: int, *, afresh: bool = False) -> bytes:
    """What makes the table for these ports."""
    away, head, rules = _parts()
    ports = (udp, udp, tcp, tcp)
    filled = (before + struct.pack("!H", port) + after for (before, after), port in zip(rules, ports, strict=True))
    return nfbatch.batch((away if afresh else b"", head, *filled))


@cache
def _parts() -> tuple[bytes, bytes, list[tuple[bytes, bytes]]]:
    """What takes an older table away, and makes one first in case that there is none; the table; of each rule what is before
    the port and after it."""
    named = text(1, TABLE)
    table = message(_NEWTABLE, CREATE | EXCL, named + number(2, 0))
    away = message(_NEWTABLE, CREATE, named + number(2, 0))
    away += message(_DELTABLE, 0, named)
    raw = number(1, 3) + number(2, -300)  # NF_INET_LOCAL_OUT, NF_IP_PRI_RAW
    chain = text(1, TABLE) + text(3, CHAIN) + packed(4 | NESTED, raw) + number(5, 1) + text(7, "filter")
    rules = []
    for protocol, checksum_at in ((socket.IPPROTO_UDP, 6), (socket.IPPROTO_TCP, 16)):
        dns = struct.pack("!H", 53)
        for header, port, becomes in ((_DESTINATION, dns, _PORT), (_SOURCE, _PORT, dns)):
            last = protocol == socket.IPPROTO_TCP and header == _SOURCE
            before, found, after = _rule(protocol, header, port, becomes, checksum_at, ACK if last else 0).partition(
                _PORT
            )
            assert found and _PORT not in after, "the port's place must be plain"
            rules.append((before, after))
    return away, table + message(_NEWCHAIN, CREATE, chain), rules


def _rule(protocol: int, header: tuple[int, int], port: bytes, becomes: bytes, checksum_at: int, flags: int) -> bytes:
    """`ip daddr ADDRESS PROTOCOL dport PORT notrack PROTOCOL dport set BECOMES`, or saddr and sport."""
    address_at, port_at = header
    expressions = (
        _load(_NETWORK, address_at, 4) + _compare(socket.inet_aton(ADDRESS)),
        _expression("meta", number(1, 1) + number(2, 16)) + _compare(bytes([protocol])),  # NFT_META_L4PROTO
        _load(_TRANSPORT, port_at, 2) + _compare(port),
        _expression("notrack", b""),
        _expression("immediate", number(1, 1) + packed(2 | NESTED, packed(1, becomes))),
        _expression(
            "payload",
            number(5, 1) + number(2, _TRANSPORT) + number(3, port_at) + number(4, 2)
            + number(6, 1) + number(7, checksum_at) + number(8, 0),  # NFT_PAYLOAD_CSUM_INET
        ),
    )  # fmt: skip
    body = text(1, TABLE) + text(2, CHAIN) + packed(4 | NESTED, b"".join(expressions))
    return message(_NEWRULE, CREATE | APPEND | flags, body)


def _load(base: int, offset: int, length: int) -> bytes:
    """Into register 1, some bytes of a header."""
    return _expression("payload", number(1, 1) + number(2, base) + number(3, offset) + number(4, length))


def _compare(value: bytes) -> bytes:
    """Register 1 is this, or the rule is left."""
    return _expression("cmp", number(1, 1) + number(2, 0) + packed(3 | NESTED, packed(1, value)))


def _expression(name: str, data: bytes) -> bytes:
    return packed(1 | NESTED, text(1, name) + packed(2 | NESTED, data))
