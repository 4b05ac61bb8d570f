"""Flows of datagrams: to each client its own answers, and an end to those that have gone quiet."""

from __future__ import annotations

import socket

import pytest

from netengine.relay import datagrams
from tests.unit.relay.doors import SECONDS, Relay, until


@pytest.fixture
def container() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("127.0.0.1", 0))
    made.settimeout(SECONDS)
    return made


def client(address: tuple[str, int]) -> socket.socket:
    made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    made.settimeout(SECONDS)
    made.connect(address)
    return made


def test_each_client_gets_its_own_answers(relay: Relay, container: socket.socket) -> None:
    address = relay.open(container)
    with container, client(address) as one, client(address) as other:
        one.send(b"one")
        other.send(b"other")
        for _ in range(2):
            words, peer = container.recvfrom(64)
            container.sendto(b"to " + words, peer)
        assert one.recv(64) == b"to one" and other.recv(64) == b"to other"
        assert relay.server.figures() == (0, 2)


def test_a_flow_ends_when_it_has_been_quiet(
    relay: Relay, container: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datagrams, "IDLE_SECONDS", 0.05)
    with container, client(relay.open(container)) as one:
        one.send(b"hello")
        container.recvfrom(64)
        until(lambda: relay.server.figures() == (0, 0))


def test_the_longest_idle_flow_makes_room(
    relay: Relay, container: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datagrams, "PER_DOOR", 2)
    address = relay.open(container)
    with container:
        clients = [client(address) for _ in range(5)]
        for sock in clients:
            sock.send(b"hello")
            container.recvfrom(64)
        assert relay.server.figures() == (0, 2)
        for sock in clients:
            sock.close()


def test_a_container_that_is_not_there_costs_the_datagram_and_no_more(relay: Relay, container: socket.socket) -> None:
    address = relay.open(container)
    port = container.getsockname()[1]
    container.close()
    with client(address) as one:
        one.send(b"lost")
        until(lambda: relay.server.figures() == (0, 1))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as back:
            back.bind(("127.0.0.1", port))
            back.settimeout(0.2)

            def arrives() -> bool:
                one.send(b"again")
                try:
                    return back.recv(64) == b"again"
                except TimeoutError:
                    return False

            until(arrives)
