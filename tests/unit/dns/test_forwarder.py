"""Unknown names: what is under way, for how long, and what it costs others."""

from __future__ import annotations

import gc
import importlib.util
import socket
import sys
import weakref
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import pytest

from netengine.dns import forwarder, wire
from netengine.dns.protocol import Settings

_spec = importlib.util.spec_from_file_location("dns_inside", Path(__file__).with_name("inside.py"))
assert _spec is not None and _spec.loader is not None
inside = importlib.util.module_from_spec(_spec)
sys.modules["dns_inside"] = inside
_spec.loader.exec_module(inside)

HOST = ("127.0.0.1",)
OWN = Settings(("n",), servers=HOST)


class Upstream:
    """A server that answers when the test says so."""

    def __init__(self) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.setblocking(False)
        self.port: int = self.sock.getsockname()[1]
        self.asked: list[tuple[bytes, tuple[str, int]]] = []

    def receive(self) -> int:
        """Take what has come; how many questions there were so far."""
        try:
            while True:
                self.asked.append(self.sock.recvfrom(4096))
        except BlockingIOError:
            return len(self.asked)

    def answer(self, number: int) -> None:
        packet, sender = self.asked[number]
        self.sock.sendto(dns.message.make_response(dns.message.from_wire(packet)).to_wire(), sender)


class Caller(forwarder.Asker):
    """Who asks, and what it was answered."""

    limit = wire.LARGEST

    def __init__(self) -> None:
        self.replies: list[bytes] = []

    def answer(self, reply: bytes) -> None:
        self.replies.append(reply)


def question(name: str) -> bytes:
    return dns.message.make_query(name, "A").to_wire()


@pytest.mark.parametrize("own", [0, 1])
def test_a_lost_datagram_is_sent_once_more_from_the_same_port(own: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarder, "REPEAT", 0.05)
    upstream, caller = Upstream(), Caller()
    with inside.house(upstream.port, HOST) as house:
        house.box("sb", OWN if own else None, own)
        house.server.resolve(house.server.sandboxes["sb"], question("example.com"), caller)
        house.until(lambda: upstream.receive() == 2)
        assert upstream.asked[0] == upstream.asked[1]
        upstream.answer(1)
        house.until(lambda: caller.replies)
        upstream.answer(0)
        house.loop.turn(0.05)
        assert upstream.receive() == 2 and len(caller.replies) == 1


def test_a_question_that_nobody_answers_fails_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarder, "GIVE_UP", 0.1)
    upstream, caller = Upstream(), Caller()
    with inside.house(upstream.port, HOST) as house:
        house.box("sb")
        house.server.resolve(house.server.sandboxes["sb"], question("example.com"), caller)
        house.until(lambda: caller.replies)
        assert dns.message.from_wire(caller.replies[0]).rcode() == dns.rcode.SERVFAIL
        assert house.server.sandboxes["sb"].pending == 0


def test_answered_questions_leave_memory_though_an_older_one_is_stuck() -> None:
    upstream, stuck = Upstream(), Caller()
    with inside.house(upstream.port, HOST) as house:
        house.box("sb")
        sandbox = house.server.sandboxes["sb"]
        house.server.resolve(sandbox, question("stuck.example"), stuck)
        house.until(lambda: upstream.receive() == 1)
        gone = []
        for number in range(1, 20):
            caller = Caller()
            house.server.resolve(sandbox, question("quick.example"), caller)
            house.until(lambda number=number: upstream.receive() > number)
            upstream.answer(number)
            house.until(lambda caller=caller: caller.replies)
            gone.append(weakref.ref(caller))
        del caller
        gc.collect()
        assert sandbox.pending == 1 and not stuck.replies
        assert [one for one in gone if one() is not None] == []


@pytest.mark.parametrize("own", [0, 1])
def test_an_id_is_given_back_when_a_question_ends(own: int) -> None:
    """With servers that cannot be reached, more questions than there are ids: each fails, and none hangs."""
    with inside.house(53, ("::1",)) as house:
        house.box("sb", Settings(("n",), servers=("255.255.255.255",)) if own else None, own)
        caller, sandbox = Caller(), house.server.sandboxes["sb"]
        for _ in range(66_000 if own else 100):
            house.server.resolve(
                sandbox,
                question("x") if own == 0 else b"\x00\x01\x01\x00\x00\x01" + bytes(6) + b"\x01x\x00\x00\x01\x00\x01",
                caller,
            )
        house.until(lambda: sandbox.pending == 0)
        assert {reply[3] & 15 for reply in caller.replies} == {wire.SERVFAIL}


def test_at_most_1024_questions_of_a_sandbox_are_under_way_and_others_do_not_notice() -> None:
    upstream = Upstream()
    with inside.house(upstream.port) as house:
        house.box("noisy", OWN, 1)
        house.box("quiet", OWN, 1)
        noisy, callers = house.server.sandboxes["noisy"], [Caller() for _ in range(1030)]
        for caller in callers:
            house.server.resolve(noisy, question("example.com"), caller)
        assert noisy.pending == 1024
        refused = [caller for caller in callers if caller.replies]
        assert refused == callers[1024:]
        assert {dns.message.from_wire(caller.replies[0]).rcode() for caller in refused} == {dns.rcode.REFUSED}
        seen = upstream.receive()
        quiet = Caller()
        house.server.resolve(house.server.sandboxes["quiet"], question("other.example"), quiet)
        house.until(lambda: upstream.receive() == seen + 1)
        upstream.answer(seen)
        house.until(lambda: quiet.replies)
        assert dns.message.from_wire(quiet.replies[0]).rcode() == dns.rcode.NOERROR


@pytest.mark.parametrize("tcp", [False, True])
def test_a_sandbox_that_floods_does_not_starve_another(tcp: bool) -> None:
    with inside.house() as house:
        house.box("noisy")
        house.box("quiet")
        floods = [house.client("noisy", tcp) for _ in range(8)]
        quiet = house.client("quiet")
        packet = question("unknown.example")  # answered SERVFAIL, the slow way: there are no servers
        burst = inside.framed(packet) * 500 if tcp else packet

        def flood() -> None:
            for sock in floods:
                try:
                    for _ in range(1 if tcp else 200):
                        sock.send(burst)
                    while tcp and inside.received(sock):
                        pass
                except BlockingIOError:
                    pass

        for _ in range(20):
            flood()
            house.loop.turn(0)
            quiet.send(question("web"))
            answered = 0
            while (reply := inside.received(quiet)) is None:
                flood()
                house.loop.turn(0)
                answered += 1
                assert answered <= 2, "the quiet one waits for more than two turns"
            assert dns.message.from_wire(reply).answer
        assert house.server.sandboxes["noisy"].tally.asked > 500
