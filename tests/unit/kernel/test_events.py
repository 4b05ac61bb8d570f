"""What is made of the kernel's event messages: pure decoding, by messages as the kernel lays them out."""

from __future__ import annotations

import socket
import struct

from netengine.kernel.events import (
    AddressGone,
    AddressSeen,
    ForwardingOff,
    LinkGone,
    LinkSeen,
    Notice,
    RateTouched,
    RouteGone,
    RouteSeen,
    route_notices,
    table_changes,
)
from netengine.kernel.resources import ROUTE_PROTOCOL
from netengine.kernel.shaping import HANDLE


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", len(value) + 4, kind) + value + b"\0" * (-len(value) % 4)


def message(kind: int, body: bytes, port: int = 0) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, port) + body + b"\0" * (-len(body) % 4)


def link(kind: int, flags: int = 0, family: int = 0, *attributes: bytes) -> bytes:
    return message(kind, struct.pack("=BxHiII", family, 0, 7, flags, 0) + b"".join(attributes))


def heard(*messages: bytes) -> list[Notice]:
    return list(route_notices(b"".join(messages)))


NAME = attribute(3, b"br0\0")


def test_a_link_with_its_state() -> None:
    port, mtu, mac = attribute(10, struct.pack("=I", 4)), attribute(4, struct.pack("=I", 1400)), attribute(1, bytes(6))
    assert heard(link(16, 1, 0, NAME, port, mtu, mac)) == [LinkSeen("br0", True, 1400, "00:00:00:00:00:00", True, 7)]


def test_a_link_that_is_down_and_one_that_is_gone() -> None:
    assert heard(link(16, 0, 0, NAME), link(17, 0, 0, NAME)) == [
        LinkSeen("br0", False, 0, "", False, 7),
        LinkGone("br0"),
    ]


def test_a_port_that_leaves_a_bridge_is_not_a_link_that_goes() -> None:
    assert heard(link(17, 0, socket.AF_BRIDGE, NAME)) == []


def test_an_address_by_its_link() -> None:
    body = struct.pack("=BBBBI", socket.AF_INET, 24, 0, 0, 7)
    body += attribute(2, socket.inet_aton("10.0.0.1")) + attribute(3, b"br0:1\0")
    assert heard(message(21, body)) == [AddressGone("br0", "10.0.0.1")]
    assert heard(message(20, body)) == [AddressSeen("10.0.0.1")]


def test_an_address_of_ipv6_has_no_link_s_name() -> None:
    body = struct.pack("=BBBBI", socket.AF_INET6, 64, 0, 0, 7) + attribute(
        1, socket.inet_pton(socket.AF_INET6, "fd00::1")
    )
    assert heard(message(21, body)) == [AddressGone("", "fd00::1")]


def test_forwarding_of_ipv6() -> None:
    body = struct.pack("=Bxxx", socket.AF_INET6) + attribute(1, struct.pack("=i", -1)) + attribute(2, bytes(4))
    assert heard(message(80, body)) == [ForwardingOff(ipv6=True)]


def test_only_routes_of_ours() -> None:
    ours = struct.pack("=BBBBBBBBI", socket.AF_INET, 24, 0, 0, 254, ROUTE_PROTOCOL, 0, 1, 0)
    theirs = struct.pack("=BBBBBBBBI", socket.AF_INET, 24, 0, 0, 254, 4, 0, 1, 0)
    assert heard(message(25, theirs), message(25, ours)) == [RouteGone()]


def test_routes_of_others_to_somewhere() -> None:
    def route(
        length: int = 24, table: int = 254, protocol: int = 4, kind: int = 1, family: int = socket.AF_INET
    ) -> bytes:
        body = struct.pack("=BBBBBBBBI", family, length, 0, 0, table, protocol, 0, kind, 0)
        address = socket.inet_pton(family, "10.9.0.0" if family == socket.AF_INET else "fd00::")
        return message(24, body + attribute(1, address) + attribute(4, struct.pack("=I", 7)))

    assert heard(route(), route(8, family=socket.AF_INET6)) == [RouteSeen("10.9.0.0/24", 7), RouteSeen("fd00::/8", 7)]
    assert heard(route(0), route(table=255), route(protocol=ROUTE_PROTOCOL), route(kind=2)) == []


def test_forwarding_of_the_whole_host_only() -> None:
    def netconf(index: int, value: int) -> bytes:
        body = struct.pack("=Bxxx", socket.AF_INET)
        return message(80, body + attribute(1, struct.pack("=i", index)) + attribute(2, struct.pack("=i", value)))

    assert heard(netconf(-1, 1), netconf(3, 0)) == []
    assert heard(netconf(-1, 0)) == [ForwardingOff()]


def test_another_queueing_discipline_than_ours() -> None:
    def qdisc(kind: int, index: int, handle: int, parent: int = 0xFFFFFFFF) -> bytes:
        return message(kind, struct.pack("=BxxxiIII", socket.AF_UNSPEC, index, handle, parent, 0))

    assert heard(qdisc(36, 3, HANDLE), qdisc(37, 3, 0x80010000), qdisc(36, 3, 0x80010000, HANDLE)) == []
    assert heard(qdisc(37, 3, HANDLE), qdisc(36, 4, 0x80010000)) == [RateTouched(3), RateTouched(4)]


def test_changes_of_our_table_and_who_made_them() -> None:
    def nft(kind: int, *attributes: bytes) -> bytes:
        return message(10 << 8 | kind, struct.pack("=BBH", socket.AF_INET, 0, 0) + b"".join(attributes), port=42)

    ours, theirs = attribute(1, b"netengine\0"), attribute(1, b"netengine2\0")
    changes = nft(8, theirs) + nft(8, ours) + nft(15, attribute(1, bytes(4)), attribute(3, b"nft\0"))
    assert list(table_changes(changes)) == [(42, None), (42, "nft")]


def test_garbage_says_nothing() -> None:
    for data in (b"", b"\0" * 40, b"\xff" * 64, message(16, b"\0" * 3), message(80, b"\x02")):
        assert list(route_notices(data)) == []
        assert list(table_changes(data)) == []
