"""Questions over TCP: what owes an answer, and what does not."""

from __future__ import annotations

import errno
import importlib.util
import socket
import sys
import time
from pathlib import Path

import dns.message
import pytest

from netengine.dns import tcp

_spec = importlib.util.spec_from_file_location("dns_inside", Path(__file__).with_name("inside.py"))
assert _spec is not None and _spec.loader is not None
inside = importlib.util.module_from_spec(_spec)
sys.modules["dns_inside"] = inside
_spec.loader.exec_module(inside)


def test_responses_sent_as_questions_do_not_stop_a_connection() -> None:
    with inside.house() as house:
        house.box("sb")
        client = house.client("sb", tcp=True)
        response = dns.message.make_response(dns.message.make_query("web", "A")).to_wire()
        for _ in range(tcp.MOST_PENDING * 2):
            client.sendall(inside.framed(response))
        client.sendall(inside.framed(dns.message.make_query("web", "A").to_wire()))
        got: list[bytes] = []
        house.until(lambda: got or (got.append(data) if (data := inside.received(client)) else None))
        assert dns.message.from_wire(got[0][2:]).answer


def test_a_message_without_header_closes_the_connection() -> None:
    with inside.house() as house:
        house.box("sb")
        client = house.client("sb", tcp=True)
        client.sendall(inside.framed(b"GET"))
        house.until(lambda: inside.received(client) == b"")


def test_a_server_that_is_out_of_descriptors_does_not_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "PAUSE", 0.2)
    tries: list[int] = []
    until = time.monotonic() + 0.1

    class Full:
        def __init__(self, sock: socket.socket) -> None:
            self.sock = sock

        def accept(self) -> tuple[socket.socket, object]:
            tries.append(1)
            if time.monotonic() < until:
                raise OSError(errno.EMFILE, "Too many open files")
            return self.sock.accept()

        def __getattr__(self, name: str) -> object:
            return getattr(self.sock, name)

    with inside.house() as house:
        house.box("sb")
        house.server.sandboxes["sb"].tcp = Full(house.server.sandboxes["sb"].tcp)
        client = house.client("sb", tcp=True)
        client.sendall(inside.framed(dns.message.make_query("web", "A").to_wire()))
        turns = house.until(lambda: inside.received(client))
        assert len(tries) <= 2, "asked again when the pause is over, and not before"
        assert turns < 100


def test_idle_connections_of_all_sandboxes_cost_the_loop_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "IDLE_SECONDS", 0.1)
    with inside.house() as house:
        before = len(house.loop.timed)
        clients = []
        for n in range(20):
            house.box(f"sb{n}")
            clients.append(house.client(f"sb{n}", tcp=True))
        assert len(house.loop.timed) == before
        house.until(lambda: all(inside.received(client) == b"" for client in clients))
