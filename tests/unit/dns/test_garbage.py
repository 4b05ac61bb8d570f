"""Whatever comes in a packet, the server drops it or answers it, and goes on: over UDP, over TCP, and in no time."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from time import process_time

import dns.message
import dns.rcode
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from netengine.dns import wire

_spec = importlib.util.spec_from_file_location("dns_inside", Path(__file__).with_name("inside.py"))
assert _spec is not None and _spec.loader is not None
inside = importlib.util.module_from_spec(_spec)
sys.modules["dns_inside"] = inside
_spec.loader.exec_module(inside)

bounded = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

ONE = b"\x00\x01\x01\x00\x00\x01" + bytes(6)  # the header of one question
LOOP = ONE + b"\xc0\x0c\x00\x01\x00\x01"
LABELS = ONE + b"\x01x" * 32000 + b"\x00\x00\x01\x00\x01"
# 5,000 records whose names all point to the longest one: what takes a careless reader a second.
RECORDS = b"\x00\x01\x01\x00\x00\x01\x13\x88" + bytes(4) + b"\x01x" * 126 + b"\x00\x00\x01\x00\x01"
RECORDS += (b"\xc0\x0c\x00\x01\x00\x01" + bytes(6)) * 5000


@st.composite
def nearly_questions(draw: st.DrawFn) -> bytes:
    """A real question, with bytes changed, cut off or added."""
    kind = draw(st.sampled_from(["A", "AAAA", "PTR", "SRV", "ANY", "AXFR", "TSIG", "OPT"]))
    name = draw(st.sampled_from(["web", "WEB.app", "db", "many", "2.0.18.172.in-addr.arpa", "other.example", "."]))
    query = dns.message.make_query(
        name, kind, use_edns=draw(st.sampled_from([-1, 0, 1])), payload=draw(st.integers(0, 9000))
    )
    packet = bytearray(query.to_wire())
    for _ in range(draw(st.integers(0, 4))):
        packet[draw(st.integers(0, len(packet) - 1))] = draw(st.integers(0, 255))
    return bytes(packet[: draw(st.integers(0, len(packet)))] if draw(st.booleans()) else packet) + draw(
        st.binary(max_size=40)
    )


@st.composite
def counted(draw: st.DrawFn) -> bytes:
    """A header that promises records, and labels and pointers in any order behind it."""
    counts = b"".join(draw(st.integers(0, 9)).to_bytes(2, "big") for _ in range(4))
    piece = st.one_of(
        st.sampled_from(
            [b"\x00", b"\xc0\x0c", b"\xc0\x00", b"\x03web", b"\x3f", b"\x40a", b"\x00\x01\x00\x01", b"\x00\x00\x29"]
        ),
        st.binary(max_size=20),
    )
    return b"\xab\xcd" + draw(st.binary(min_size=2, max_size=2)) + counts + b"".join(draw(st.lists(piece, max_size=30)))


packets = st.one_of(nearly_questions(), counted(), st.binary(max_size=1500))


@pytest.fixture(scope="module")
def house() -> Iterator[object]:
    with inside.house() as one:
        one.box("sb")
        yield one


def check(packet: bytes, reply: bytes, largest: int) -> None:
    assert len(packet) >= wire.HEADER and not packet[2] & 0x80, "a packet was answered that must be dropped"
    assert reply[:2] == packet[:2] and reply[2] & 0x80 and wire.HEADER <= len(reply) <= largest
    dns.message.from_wire(reply)


@given(packets)
@example(LOOP)
@example(LABELS[:60000])
@example(RECORDS[:9000])
@example(b"")
@bounded
def test_any_packet_over_udp_is_dropped_or_answered(house, packet: bytes) -> None:
    client = house.client("sb")
    last = dns.message.make_query("web", "A", id=0xBEEF).to_wire()
    client.send(packet)
    client.send(last)
    replies: list[bytes] = []

    def all_came() -> bool:
        while data := inside.received(client):
            replies.append(data)
        return any(reply[:2] == b"\xbe\xef" for reply in replies)

    house.until(all_came)  # both are of one batch, and so are their answers
    for reply in replies:
        if reply[:2] != b"\xbe\xef":
            check(packet, reply, 65535)
    client.close()


@given(st.lists(packets, min_size=1, max_size=4), st.booleans())
@example([LOOP, LABELS, RECORDS], True)
@bounded
def test_any_packet_over_tcp_is_dropped_or_answered(house, several: list[bytes], cut: bool) -> None:
    client = house.client("sb", tcp=True)
    stream = b"".join(map(inside.framed, several))
    sent, ended, data = 0, False, bytearray()
    stream = stream[:-1] if cut else stream

    def over() -> bool:
        nonlocal sent, ended
        if sent < len(stream):
            try:
                sent += client.send(stream[sent:])
            except BlockingIOError:
                pass
            except ConnectionError:
                sent = len(stream)
        elif not ended:
            ended = True
            try:
                client.shutdown(1)
            except OSError:
                return True
        while piece := inside.received(client):
            data.extend(piece)
        return piece == b""

    house.until(over)
    client.close()
    while len(data) >= 2:
        size = int.from_bytes(data[:2], "big")
        dns.message.from_wire(bytes(data[2 : 2 + size]))
        del data[: 2 + size]
    assert not data


@given(packets)
@bounded
def test_a_parsed_packet_can_be_refused(packet: bytes) -> None:
    query = wire.parse(packet)
    if query is not None:
        check(packet, wire.reply(query, query.problem or wire.SERVFAIL), wire.LARGEST)


def test_compression_loops_and_endless_labels_are_format_errors() -> None:
    for packet in (LOOP, LABELS, RECORDS, ONE, ONE + b"\x03we"):
        query = wire.parse(packet)
        assert query is not None and query.problem == wire.FORMERR


def test_the_worst_packets_cost_next_to_nothing() -> None:
    start = process_time()
    for _ in range(100):
        for packet in (LOOP, LABELS, RECORDS, RECORDS[: wire.ODD_BYTES]):
            wire.parse(packet)
    assert process_time() - start < 1.0  # 400 packets


def test_padded_questions_are_answered_but_not_kept(house) -> None:
    client = house.client("sb")
    client.send(dns.message.make_query("web", "A").to_wire() + bytes(3000))
    got: list[bytes] = []
    house.until(lambda: got or (got.append(data) if (data := inside.received(client)) else None))
    assert dns.message.from_wire(got[0]).answer
    assert all(len(kept) <= 512 for kept in house.server.sandboxes["sb"].view.hot)
