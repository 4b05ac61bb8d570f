"""The control socket: doors opened, listed with their sockets, closed; and messages that are none."""

from __future__ import annotations

import socket

import msgspec
import pytest

from netengine.relay import protocol
from netengine.relay.protocol import Door
from tests.unit.relay.doors import SECONDS, Relay


@pytest.fixture
def door() -> tuple[Door, socket.socket]:
    sock = socket.create_server(("::1", 0), family=socket.AF_INET6)
    return Door("::1", "tcp", sock.getsockname()[1], "127.0.0.1", 9), sock


def test_a_door_is_listed_with_its_socket_until_it_is_closed(relay: Relay, door: tuple[Door, socket.socket]) -> None:
    wanted, sock = door
    relay.done(protocol.Open(wanted), sock)
    sock.close()
    assert relay.ask(protocol.List())[0] == protocol.Listed(wanted)
    relay.control.send(msgspec.json.encode(protocol.List(sockets=True)))
    _, descriptors, _, _ = socket.recv_fds(relay.control, protocol.LARGEST, 1)
    relay.control.recv(protocol.LARGEST)
    with socket.socket(fileno=descriptors[0]) as back:
        assert back.getsockname()[1] == wanted.port
    relay.done(protocol.Close("::1", "tcp", wanted.port))
    assert [type(a) for a in relay.ask(protocol.List())] == [protocol.Done]
    with socket.create_server(("::1", wanted.port), family=socket.AF_INET6):
        pass  # the port is free


def test_the_same_port_once_more_takes_the_place_of_the_first(relay: Relay, door: tuple[Door, socket.socket]) -> None:
    first, sock = door
    second = Door(first.address, "tcp", first.port, "127.0.0.1", 10)
    relay.done(protocol.Open(first), sock)
    relay.done(protocol.Open(second), sock)
    sock.close()
    assert relay.ask(protocol.List())[:-1] == [protocol.Listed(second)]


def test_many_doors_are_opened_and_closed_by_one_message(relay: Relay) -> None:
    held = [socket.create_server(("::1", 0), family=socket.AF_INET6) for _ in range(protocol.MOST)]
    doors = [Door("::1", "tcp", sock.getsockname()[1], "127.0.0.1", 9) for sock in held]
    assert relay.done(protocol.OpenAll(doors), *held).error == ""
    for sock in held:
        sock.close()
    assert relay.ask(protocol.List())[:-1] == [protocol.Listed(door) for door in doors]
    assert relay.done(protocol.CloseAll([door.key for door in doors[1:]])).error == ""
    assert relay.ask(protocol.List())[:-1] == [protocol.Listed(doors[0])]


@pytest.mark.parametrize(
    "message",
    [b"{", b"\xff\xfe", b"[]", b'{"op":"burn"}', b'{"op":"open"}', b'{"op":"open","door":{"address":1}}', b"x" * 4096],
)
def test_a_message_that_is_none_is_answered_and_harms_nothing(relay: Relay, message: bytes) -> None:
    assert relay.done(message).error
    assert relay.done(protocol.List()).error == ""


def test_a_door_without_a_socket_is_refused(relay: Relay, door: tuple[Door, socket.socket]) -> None:
    assert "no sockets came with 1 doors" in relay.done(protocol.Open(door[0])).error
    door[1].close()


def test_it_ends_by_itself_after_its_last_door(relay: Relay, door: tuple[Door, socket.socket]) -> None:
    wanted, sock = door
    relay.done(protocol.Open(wanted), sock)
    relay.done(protocol.Close("::1", "tcp", wanted.port))
    relay._thread.join(SECONDS)
    assert not relay._thread.is_alive()
    sock.close()
