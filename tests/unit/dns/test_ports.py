"""The ports from which the host's servers are asked: few, of short life, and no help to who forges answers."""

from __future__ import annotations

import gc
import importlib.util
import os
import socket
import sys
from collections import Counter
from pathlib import Path

import dns.message
import dns.rcode
import pytest

from netengine.dns import ports, wire
from netengine.dns.pending import Asker
from netengine.dns.protocol import Update

_spec = importlib.util.spec_from_file_location("dns_inside", Path(__file__).with_name("inside.py"))
assert _spec is not None and _spec.loader is not None
inside = importlib.util.module_from_spec(_spec)
sys.modules["dns_inside"] = inside
_spec.loader.exec_module(inside)

HOST = ("127.0.0.1",)


class Peer:
    """The host's server: what it was asked, from which ports."""

    def __init__(self) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.setblocking(False)
        self.port: int = self.sock.getsockname()[1]
        self.asked: list[tuple[bytes, int]] = []

    def has(self, times: int) -> bool:
        while (packet := self._next()) is not None:
            self.asked.append(packet)
        return len(self.asked) >= times

    def _next(self) -> tuple[bytes, int] | None:
        try:
            packet, sender = self.sock.recvfrom(4096)
        except BlockingIOError:
            return None
        return packet, sender[1]

    def answer(self, number: int, port: int | None = None) -> None:
        """Answer a question, to the port that asked or to another."""
        packet, asked_from = self.asked[number]
        reply = dns.message.make_response(dns.message.from_wire(packet)).to_wire()
        self.sock.sendto(reply, ("127.0.0.1", port or asked_from))


class Caller(Asker):
    limit = wire.LARGEST

    def __init__(self) -> None:
        self.replies: list[bytes] = []

    def answer(self, reply: bytes) -> None:
        self.replies.append(reply)


class Site:
    """A server, a sandbox, and the host's server."""

    def __init__(self, house) -> None:
        self.house, self.until, self.peer = house, house.until, Peer()
        house.server.forwarder.port = self.peer.port
        house.box("sb")

    def ask(self, times: int = 1) -> list[Caller]:
        callers = [Caller() for _ in range(times)]
        for caller in callers:
            packet = dns.message.make_query("www.example", "A").to_wire()
            self.house.server.resolve(self.house.server.sandboxes["sb"], packet, caller)
        return callers

    def asked(self, times: int = 1) -> list[Caller]:
        """Ask, and wait until the server has the questions."""
        before = len(self.peer.asked)
        callers = self.ask(times)
        self.until(lambda: self.peer.has(before + times))
        return callers


@pytest.fixture
def site():
    with inside.house(0, HOST) as house:
        one = Site(house)
        yield one
        one.peer.sock.close()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def settled_descriptors() -> int:
    """Without what earlier tests have left to the garbage collector, which may come at any time."""
    gc.collect()
    return descriptors()


def test_an_answer_to_another_port_is_none(site: Site) -> None:
    callers = site.asked(40)
    first = site.peer.asked[0][1]
    other = next(port for _, port in site.peer.asked if port != first)
    site.peer.answer(0, other)
    site.peer.answer(1)
    site.until(lambda: callers[1].replies)
    assert not callers[0].replies
    site.peer.answer(0)
    site.until(lambda: callers[0].replies)


def test_many_questions_share_a_bounded_number_of_ports(site: Site) -> None:
    before = settled_descriptors()
    site.asked(200)
    assert 16 < len({port for _, port in site.peer.asked}) <= ports.MOST_PORTS
    assert descriptors() - before <= ports.MOST_PORTS
    assert len({packet[:2] for packet, _ in site.peer.asked}) > 190


def test_a_port_asks_so_many_questions_and_is_closed_when_they_are_answered(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "MOST_PORTS", 1)
    monkeypatch.setattr(ports, "MOST_QUESTIONS", 4)
    before = settled_descriptors()
    callers = site.asked(12)
    assert sorted(Counter(port for _, port in site.peer.asked).values()) == [4, 4, 4]
    assert descriptors() == before + 3
    for number in range(12):
        site.peer.answer(number)
    site.until(lambda: all(caller.replies for caller in callers))
    assert descriptors() == before


def test_a_port_lives_for_seconds_and_an_idle_name_server_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "MOST_SECONDS", 0.1)
    monkeypatch.setattr(ports, "MOST_PORTS", 1)
    with inside.house(0, HOST) as house:
        site = Site(house)
        before = settled_descriptors()
        waiting = site.asked()[0]
        old = house.server.forwarder._pools.copy().popitem()[1]._ports[0]
        site.until(lambda: old.left == 0)
        assert descriptors() == before + 1  # somebody still waits there
        other = site.asked()[0]
        assert site.peer.asked[0][1] != site.peer.asked[1][1]
        site.peer.answer(0)
        site.peer.answer(1)
        site.until(lambda: waiting.replies and other.replies)
        site.until(lambda: descriptors() == before)
        site.peer.sock.close()


def test_other_servers_of_the_host_are_a_reason_for_new_ports(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "MOST_PORTS", 1)
    site.asked()
    site.house.server.update(Update(0, {}, {}, tuple(HOST)))
    site.asked()
    assert site.peer.asked[0][1] != site.peer.asked[1][1]


def test_where_nobody_listens_all_questions_of_a_port_fail_at_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "MOST_PORTS", 1)
    site.peer.sock.close()
    before = settled_descriptors()
    callers = site.ask(20)
    turns = site.until(lambda: all(caller.replies for caller in callers), 0.9)  # before any is sent again
    assert turns < 50
    assert {caller.replies[0][3] & 15 for caller in callers} == {wire.SERVFAIL}
    assert descriptors() <= before and site.house.server.sandboxes["sb"].pending == 0


def test_a_sandbox_that_goes_gives_ids_and_ports_back(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "MOST_PORTS", 1)
    site.asked(5)
    (pool,) = site.house.server.forwarder._pools.values()
    site.house.server.remove("sb")
    assert pool._ports[0].waiting == {}
