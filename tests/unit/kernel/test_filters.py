"""Filters, in this machine's kernel: datagrams between two sockets of a pair, of which one has the filter."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

import pytest

from netengine.kernel import entryevents, events, insides
from netengine.kernel.filters import Attribute, Byte, Drop, Not, Type, attach, drop
from netengine.kernel.resources import GRAVE_GROUP, MARK_GROUP, ROUTE_PROTOCOL

IPV4, IPV6, BRIDGE = 2, 10, 7


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def link(kind: int = 16, family: int = 0, group: int = 0, master: int = 0) -> bytes:
    body = struct.pack("=BxHiII", family, 1, 7, 1, 0) + attribute(3, b"eth0\0")
    body += attribute(10, struct.pack("=I", master)) if master else b""
    return message(kind, body + attribute(27, struct.pack("=I", group)))


def route(kind: int, table: int = 254, protocol: int = 4, family: int = IPV4) -> bytes:
    return message(kind, struct.pack("=BBBBBBBBI", family, 24, 0, 0, table, protocol, 0, 1, 0))


def netconf(index: int) -> bytes:
    return message(80, struct.pack("=Bxxx", IPV4) + attribute(1, struct.pack("=i", index)) + attribute(2, bytes(4)))


def neighbour(kind: int, family: int, state: int, flags: int) -> bytes:
    return message(kind, struct.pack("=BxxxiHBB", family, 2, state, flags, 0))


def heard(drops: Sequence[Drop], *messages: bytes) -> list[bytes]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        attach(ours, drops)
        for one in messages:
            theirs.send(one)
        theirs.close()
        return list(iter(lambda: ours.recv(4096), b""))


@pytest.mark.parametrize(
    ("condition", "those"),
    [
        (Type((16,)), {"a"}),
        (Type((16, 17)), {"a", "b"}),
        (Byte(0, BRIDGE), {"b"}),
        (Byte(0, mask=BRIDGE), {"b"}),
        (Not(Byte(0, BRIDGE)), {"a", "c"}),
        (Attribute(16, 10), {"c"}),
        (Not(Attribute(16, 10)), {"a", "b"}),
        (Attribute(16, 27, 9), {"a", "c"}),
        (Attribute(16, 99, 9), set()),
    ],
    ids=lambda value: "".join(sorted(value)) if isinstance(value, set) else str(value),
)
def test_a_condition(condition: Type | Byte | Attribute | Not, those: set[str]) -> None:
    heard_of = {"a": link(16, group=9), "b": link(17, BRIDGE), "c": link(18, group=9, master=3)}
    assert heard([drop(condition)], *heard_of.values()) == [
        data for name, data in heard_of.items() if name not in those
    ]


def test_all_conditions_of_one_drop_and_any_drop() -> None:
    a, b, c = link(16, group=9), link(16, BRIDGE), link(17, BRIDGE)
    assert heard([drop(Type((16,)), Byte(0, BRIDGE))], a, b, c) == [a, c]
    assert heard([drop(Type((16,)), Byte(0, BRIDGE)), drop(Type((17,)))], a, b, c) == [a]
    assert heard([], a, b, c) == [a, b, c]


def test_what_the_watch_of_the_host_does_not_hear() -> None:
    kept = [
        link(), link(17), link(group=MARK_GROUP, master=3), route(24), route(24, family=IPV6),
        route(25, protocol=ROUTE_PROTOCOL), netconf(-1), message(21, struct.pack("=BBBBI", IPV4, 24, 0, 0, 7)),
        message(36, bytes(20)), message(20, struct.pack("=BBBBI", IPV4, 24, 0, 0, 7)),
    ]  # fmt: skip
    dropped = [
        link(family=BRIDGE), link(17, BRIDGE), link(group=GRAVE_GROUP), route(24, table=255),
        route(24, protocol=ROUTE_PROTOCOL), route(25), netconf(3),
    ]  # fmt: skip
    assert heard(events._UNHEARD, *kept, *dropped) == kept
    assert [n for data in dropped for n in events.route_notices(data) if not isinstance(n, events.LinkSeen)] == []


def test_what_the_watch_of_sandboxes_does_not_hear() -> None:
    kept = [
        link(), link(17), link(group=MARK_GROUP), link(master=3), route(25), route(25, protocol=2),
        message(21, struct.pack("=BBBBI", IPV4, 24, 0, 0, 7)),
    ]  # fmt: skip
    dropped = [
        link(family=BRIDGE), link(group=GRAVE_GROUP), link(group=MARK_GROUP, master=3), route(24), route(25, table=255),
        message(20, struct.pack("=BBBBI", IPV4, 24, 0, 0, 7)),
    ]  # fmt: skip
    assert heard(insides._UNHEARD, *kept, *dropped) == kept


def test_what_the_watch_of_entries_does_not_hear() -> None:
    kept = [
        neighbour(28, BRIDGE, 0, 2),
        neighbour(29, BRIDGE, 0, 2),
        neighbour(28, IPV4, 0x80, 0),
        neighbour(29, IPV6, 0, 0),
    ]
    dropped = [neighbour(28, BRIDGE, 0x80, 0), neighbour(29, BRIDGE, 0, 4), neighbour(28, IPV4, 2, 0)]
    assert heard(entryevents.UNHEARD, *kept, *dropped) == kept
