"""Who gets room, and who makes some. That bytes arrive is shown with packets: tests/kernel/test_relay.py."""

from __future__ import annotations

import socket

import pytest

from netengine.relay import streams
from tests.unit.relay.doors import SECONDS, Relay, until


@pytest.fixture
def container() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def connect(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address, SECONDS)


def accept(server: socket.socket) -> socket.socket:
    server.settimeout(SECONDS)
    made, _ = server.accept()
    made.settimeout(SECONDS)
    return made


def test_words_there_and_back_and_each_end_by_itself(relay: Relay, container: socket.socket) -> None:
    with container, connect(relay.open(container)) as here, accept(container) as there:
        here.sendall(b"question")
        here.shutdown(socket.SHUT_WR)
        assert there.recv(64) == b"question" and there.recv(64) == b""
        there.sendall(b"answer")
        there.close()
        assert here.recv(64) == b"answer" and here.recv(64) == b""
    until(lambda: relay.server.figures() == (0, 0))


def test_a_full_door_lets_its_longest_idle_pair_go_when_that_has_been_idle_enough(
    relay: Relay, container: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "PER_DOOR", 2)
    monkeypatch.setattr(streams, "IDLE_SECONDS", 0.0)
    address = relay.open(container)
    with container:
        first, second = connect(address), connect(address)
        ends = [accept(container), accept(container)]
        first.sendall(b"busy")
        assert ends[0].recv(16) == b"busy"
        third = connect(address)
        ends.append(accept(container))
        second.settimeout(SECONDS)
        with pytest.raises(ConnectionResetError):
            second.recv(1)
        third.sendall(b"served")
        assert ends[2].recv(16) == b"served"
        for sock in (first, second, third, *ends):
            sock.close()


def test_who_waits_is_served_as_soon_as_another_has_been_idle_for_long(
    relay: Relay, container: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "PER_DOOR", 1)
    monkeypatch.setattr(streams, "IDLE_SECONDS", 0.3)
    address = relay.open(container)
    with container, connect(address) as quiet, accept(container), connect(address) as waiting, accept(container) as end:
        waiting.sendall(b"at last")
        assert end.recv(16) == b"at last"
        quiet.settimeout(SECONDS)
        with pytest.raises(ConnectionResetError):
            quiet.recv(1)


@pytest.mark.parametrize("bound", ["PER_DOOR", "IN_ALL"])
def test_others_wait_until_one_has_gone(
    relay: Relay, container: socket.socket, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(streams, bound, 1)
    address = relay.open(container)
    with container, connect(address) as first, accept(container) as end, connect(address) as second:
        second.sendall(b"patience")
        assert relay.server.figures()[0] == 1
        end.close()
        first.close()
        with accept(container) as served:
            assert served.recv(16) == b"patience"


def test_a_container_that_refuses_is_a_reset(relay: Relay, container: socket.socket) -> None:
    address = relay.open(container)
    container.close()
    with pytest.raises(ConnectionResetError), connect(address) as here:
        here.settimeout(SECONDS)
        here.recv(1)


def test_what_one_end_does_not_take_is_not_read_from_the_other(relay: Relay, container: socket.socket) -> None:
    """Memory is bounded by the sockets' own buffers."""
    with container, connect(relay.open(container)) as here, accept(container) as there:
        here.settimeout(0.5)
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < 1 << 28:
                sent += here.send(b"x" * (1 << 20))
        here.settimeout(SECONDS)
        got = 0
        while got < sent:
            got += len(there.recv(1 << 20))
        here.shutdown(socket.SHUT_WR)
        assert got == sent
