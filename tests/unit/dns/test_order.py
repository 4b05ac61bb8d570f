"""Whose answer counts, and who is asked when: the order of servers, dead ones, and servers of a sandbox over TCP."""

from __future__ import annotations

import importlib.util
import itertools
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import dns.message
import dns.rcode
import dns.rrset
import pytest

from netengine.dns import forwarder, upstream, wire
from netengine.dns.protocol import Settings
from netengine.dns.upstream import HEAD_STARTS, PROBE_MOST, Upstream, canonical

_spec = importlib.util.spec_from_file_location("dns_inside", Path(__file__).with_name("inside.py"))
assert _spec is not None and _spec.loader is not None
inside = importlib.util.module_from_spec(_spec)
sys.modules["dns_inside"] = inside
_spec.loader.exec_module(inside)

FIRST, SECOND = "127.0.0.2", "127.0.0.3"


class Peer:
    """A name server that answers when, and what, the test says."""

    def __init__(self, address: str, port: int = 0) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((address, port))
        self.sock.setblocking(False)
        self.port: int = self.sock.getsockname()[1]
        self.asked: list[tuple[dns.message.Message, tuple[str, int]]] = []

    def is_asked(self, times: int = 1) -> bool:
        try:
            while True:
                packet, sender = self.sock.recvfrom(4096)
                self.asked.append((dns.message.from_wire(packet), sender))
        except BlockingIOError:
            return len(self.asked) >= times

    def answer(self, address: str = "", rcode: dns.rcode.Rcode = dns.rcode.NOERROR) -> None:
        """Answer the last question: with an address, or with none."""
        query, sender = self.asked[-1]
        response = dns.message.make_response(query)
        response.set_rcode(rcode)
        if address:
            response.answer.append(dns.rrset.from_text(query.question[0].name, 1, "IN", "A", address))
        self.sock.sendto(response.to_wire(), sender)


class Caller(forwarder.Asker):
    limit = wire.LARGEST

    def __init__(self, stream: bool = False) -> None:
        self.stream = stream
        self.replies: list[dns.message.Message] = []

    def answer(self, reply: bytes) -> None:
        self.replies.append(dns.message.from_wire(reply))


class Site:
    def __init__(self, house, first: Peer, second: Peer) -> None:
        self.house, self.first, self.second = house, first, second
        house.box("sb")
        self.until = house.until

    def ask(self, name: str = "www.example", stream: bool = False) -> Caller:
        caller = Caller(stream)
        self.house.server.resolve(
            self.house.server.sandboxes["sb"], dns.message.make_query(name, "A").to_wire(), caller
        )
        return caller

    def both_asked(self) -> Caller:
        caller, times = self.ask(), (len(self.first.asked) + 1, len(self.second.asked) + 1)
        self.until(lambda: self.first.is_asked(times[0]) and self.second.is_asked(times[1]))
        return caller

    def wait(self, caller: Caller) -> list[str]:
        """The addresses that it is answered."""
        self.until(lambda: caller.replies)
        return [str(record) for rrset in caller.replies[0].answer for record in rrset]


def two_peers() -> tuple[Peer, Peer]:
    """On the same port, one that is free on both addresses."""
    while True:
        first = Peer(FIRST)
        try:
            return first, Peer(SECOND, first.port)
        except OSError:
            first.sock.close()


@pytest.fixture
def site() -> Iterator[Site]:
    first, second = two_peers()
    with inside.house(first.port, (FIRST, SECOND)) as house:
        yield Site(house, first, second)
    first.sock.close()
    second.sock.close()


# ---------------------------------------------------------------------- split horizons


@pytest.mark.parametrize("rcode", [dns.rcode.NXDOMAIN, dns.rcode.NOERROR])
def test_the_first_server_s_slow_yes_wins_over_a_later_one_s_quick_no(site: Site, rcode: dns.rcode.Rcode) -> None:
    caller = site.both_asked()
    site.second.answer(rcode=rcode)
    site.until(lambda: site.house.server.forwarder._holds.next())
    assert not caller.replies
    site.first.answer("10.0.0.1")
    assert site.wait(caller) == ["10.0.0.1"]


def test_a_later_server_s_no_counts_when_the_first_fails_or_takes_too_long(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = site.both_asked()
    site.second.answer(rcode=dns.rcode.NXDOMAIN)
    site.until(lambda: site.house.server.forwarder._holds.next())
    site.first.answer(rcode=dns.rcode.SERVFAIL)
    site.wait(caller)
    assert caller.replies[0].rcode() == dns.rcode.NXDOMAIN

    monkeypatch.setattr(site.house.server.forwarder._holds, "_seconds", 0.05)
    caller = site.both_asked()
    site.second.answer(rcode=dns.rcode.NXDOMAIN)
    site.wait(caller)
    assert caller.replies[0].rcode() == dns.rcode.NXDOMAIN


def test_a_later_server_s_yes_and_the_first_one_s_no_count_at_once(site: Site) -> None:
    caller = site.both_asked()
    site.second.answer("10.0.0.2")
    assert site.wait(caller) == ["10.0.0.2"]
    caller = site.both_asked()
    site.first.answer(rcode=dns.rcode.NXDOMAIN)
    site.wait(caller)
    assert caller.replies[0].rcode() == dns.rcode.NXDOMAIN


# ---------------------------------------------------------------------- dead and slow servers


def test_a_dead_server_costs_nobody_time_and_is_back_when_it_answers_a_copy(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    forwarding = site.house.server.forwarder
    caller = site.ask()
    site.until(lambda: site.first.is_asked())
    site.first.answer("10.0.0.3")
    site.wait(caller)  # or it would be asked again, first and second, while the others are
    dead = forwarding._upstreams["", FIRST]
    for _ in range(upstream.MISSES):
        dead.missed(0.0)
    dead.probe_at = 0.0
    caller = site.ask("copied.example")
    site.until(lambda: site.second.is_asked() and site.first.is_asked(2))
    site.second.answer("10.0.0.2")
    assert site.wait(caller) == ["10.0.0.2"], "the second is asked first, and its word counts"
    assert dead.dead
    site.first.answer(rcode=dns.rcode.NXDOMAIN)
    site.until(lambda: not dead.dead)
    site.until(lambda: site.house.server.sandboxes["sb"].pending == 0)
    tally = site.house.server.sandboxes["sb"].tally
    assert (tally.forwarded, tally.failed) == (2, 0), "copies are nobody's questions"
    asked, began = len(site.second.asked), monotonic()
    caller = site.ask()
    site.until(lambda: site.first.is_asked(3))
    site.first.answer("10.0.0.1")
    assert site.wait(caller) == ["10.0.0.1"]
    took = monotonic() - began
    assert not site.second.is_asked(asked + 1) or took > upstream.HEAD_STARTS[0], "on a busy machine it is too late"


def test_copies_to_a_dead_server_become_rare() -> None:
    dead, now, times = Upstream("192.0.2.1"), 0.0, []
    for _ in range(upstream.MISSES):
        dead.missed(now)
    while now < 200:
        if dead.takes_probe(now):
            times.append(now)
        now += 0.5
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert times[0] == 1.0 and gaps[0] == 2.0
    assert gaps[-1] == PROBE_MOST and sorted(gaps) == gaps


def test_the_head_start_suits_the_server() -> None:
    def after(*seconds: float) -> float:
        one = Upstream("192.0.2.1")
        for each in seconds:
            one.answered(each)
        return HEAD_STARTS[one.head_start()]

    assert after() == after(0.001) == 0.05
    assert after(0.08) == 0.2
    assert after(3.0) == 0.4
    assert after(0.3, *[0.001] * 50) == 0.05, "what it was once is forgotten"


def test_addresses_are_compared_in_one_form() -> None:
    assert canonical("2001:0DB8:0::1") == "2001:db8::1"
    assert canonical("10.0.0.1") == "10.0.0.1"


# ---------------------------------------------------------------------- a sandbox's own servers over TCP


def test_own_servers_are_asked_over_tcp_from_the_sandbox_s_sockets_in_turn() -> None:
    with socket.create_server((FIRST, 0)) as listener:
        listener.settimeout(5)
        with inside.house(listener.getsockname()[1]) as house:
            house.box("sb", Settings(("n",), servers=(FIRST,)), own=1, streams=2)
            mine = {sock.fileno() for sock in house.server.sandboxes["sb"].own}
            callers = []
            for n in range(5):
                callers.append(Caller(stream=True))
                packet = dns.message.make_query(f"n{n}.example", "A").to_wire()
                house.server.resolve(house.server.sandboxes["sb"], packet, callers[-1])
            for served in range(1, 6):
                house.loop.turn(0.01)
                connection, _ = listener.accept()
                connection.setblocking(False)
                got = bytearray()
                house.until(lambda c=connection, g=got: g.extend(_there(c)) or (len(g) > 2 and len(g) >= 2 + g[1]))
                response = dns.message.make_response(dns.message.from_wire(bytes(got[2:])))
                connection.sendall(inside.framed(response.to_wire()))
                house.until(lambda n=served: sum(len(c.replies) for c in callers) == n)
                connection.close()
            assert {str(c.replies[0].question[0].name) for c in callers} == {f"n{n}.example." for n in range(5)}
            assert {sock.fileno() for sock in house.server.sandboxes["sb"].own} == mine


def _there(sock: socket.socket) -> bytes:
    try:
        return sock.recv(65535)
    except BlockingIOError:
        return b""
