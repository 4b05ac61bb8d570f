"""A new version of the rules takes over the table of an old one while packets flow: no flow loses one, no port is closed."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netengine.kernel import ruleset
from netengine.kernel.events import table_changes
from netengine.kernel.nftables import commands
from netengine.kernel.resources import Element, Table
from tests.hosts import wait_until
from tests.kernel.machine import FORWARDING, STRANGERS_STAY_OUT, Lan, Machine, port

OLD = sorted((Path(__file__).parent / "rulesets").glob("*.nft"))
DATAGRAMS = 20
"""Round trips before and after the takeover; as many as it takes go on while it happens."""


def downgrade(machine: Machine, old: Path) -> None:
    """Put the table of an old version, with the elements that it knew, in the place of today's."""
    text = old.read_text()
    known = [e for e in machine.built if isinstance(e, Element) and e.family == "ip" and f" {e.container} {{" in text]
    lines = ["delete table ip netengine", text, *commands("add", known)]
    machine.run("nft", "-f", "-", stdin="\n".join(lines))
    assert ruleset.version("ip") not in machine.rules()


class Flow:
    """A client that sends datagrams without pause, and counts those that were not answered in order."""

    def __init__(self, here: socket.socket) -> None:
        self.here = here
        self.answered = 0
        self.lost: list[str] = []
        self._goes_on = True
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while self._goes_on and not self.lost:
            number += 1
            self.here.send(b"%d" % number)
            try:
                got = self.here.recv(64)
            except OSError as error:
                self.lost.append(f"datagram {number}: {error}")
                return
            if got != b"%d" % number:
                self.lost.append(f"datagram {number}: answer {got!r}")
            self.answered += 1

    def more(self) -> None:
        """Wait until as many datagrams again have made it there and back."""
        goal = self.answered + DATAGRAMS
        wait_until(lambda: self.answered >= goal or self.lost, f"{goal} datagrams answered", 20)

    def end(self) -> None:
        self._goes_on = False
        self._thread.join()


class Doors:
    """A client that makes connection after connection to a published port."""

    def __init__(self, client: Machine, address: str, number: int) -> None:
        self.made = 0
        self.failed: list[str] = []
        self._target = (client, address, number)
        self._goes_on = True
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        client, address, number = self._target
        while self._goes_on:
            try:
                client.connect(address, number, 1.0).close()
                self.made += 1
            except OSError as error:
                self.failed.append(f"connection {self.made}: {error}")
                return

    def more(self) -> None:
        goal = self.made + DATAGRAMS
        wait_until(lambda: self.made >= goal or self.failed, f"{goal} connections made", 20)

    def end(self) -> None:
        self._goes_on = False
        self._thread.join()


@contextlib.contextmanager
def serving(server: socket.socket, one: Callable[[socket.socket], None]) -> Iterator[None]:
    """Call `one`, which waits a moment for a client and serves it, over and over."""
    server.settimeout(0.1)
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                one(server)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        server.close()


def echo(server: socket.socket) -> None:
    data, peer = server.recvfrom(64)
    server.sendto(data, peer)


def welcome(server: socket.socket) -> None:
    server.accept()[0].close()


@pytest.mark.parametrize("old", OLD, ids=lambda path: path.stem)
def test_no_packet_of_a_flow_is_lost_and_no_port_is_closed(machine: Machine, outside: Machine, old: Path) -> None:
    lan = Lan(machine).build()
    machine.build({STRANGERS_STAY_OUT, Table("ip6")})
    web = lan.sandbox("web", 2, port(8080, 80), port(5353, 53, protocol="udp"))
    client = lan.sandbox("client", 3)
    downgrade(machine, old)
    before = machine.built
    with contextlib.ExitStack() as stack:
        published, elsewhere = web.socket(socket.SOCK_DGRAM), outside.socket(socket.SOCK_DGRAM)
        published.bind(("0.0.0.0", 53))
        elsewhere.bind(("0.0.0.0", 53))
        for server, one in ((published, echo), (elsewhere, echo), (web.listen(80), welcome)):
            stack.enter_context(serving(server, one))
        into, out = outside.socket(socket.SOCK_DGRAM), client.socket(socket.SOCK_DGRAM)
        into.connect(("192.0.2.1", 5353))  # translated on the way in
        out.connect(("192.0.2.2", 53))  # translated on the way out
        flows = [Flow(into), Flow(out)]
        doors = Doors(outside, "192.0.2.1", 8080)
        try:
            for busy in (*flows, doors):
                busy.more()
            seen = machine.observe(before)
            assert Table("ip") not in seen, "the old table is taken for today's"
            machine.apply(before, seen)
            for busy in (*flows, doors):
                busy.more()
        finally:
            for busy in (*flows, doors):
                busy.end()
            into.close()
            out.close()
        assert [flow.lost for flow in flows] == [[], []]
        assert doors.failed == []
    machine.must_be_as_built()
    assert ruleset.version("ip") in machine.rules()


def test_rules_and_elements_of_a_table_come_in_one_transaction(machine: Machine) -> None:
    """Rules without their elements would decide on packets between two."""
    resources = frozenset({Table("ip"), *Lan(machine).resources, *FORWARDING})
    machine.apply(resources)
    machine.built = resources
    machine.run("nft", "flush ruleset")
    ear = machine.on_kernel(_transactions)
    machine.heal()
    assert sum(process is not None for _, process in table_changes(_all(ear))) == 1


def _transactions() -> socket.socket:
    """What nf_tables says of every change, and of the end of each transaction (NFNLGRP_NFTABLES)."""
    heard = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 12)
    heard.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    heard.bind((0, 1 << 6))
    return heard


def _all(heard: socket.socket) -> bytes:
    data = b""
    with heard, contextlib.suppress(BlockingIOError):
        while True:
            data += heard.recv(1 << 18)
    return data
