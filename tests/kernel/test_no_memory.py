"""A kernel without memory for its answers: a socket with room for two or three of them loses the others for real (ENOBUFS).

What was carried out unanswered is taken back all the same, and the same request works when there is room again.
"""

from __future__ import annotations

import logging
import socket
import struct

import pytest

from netengine.errors import KernelRefused
from netengine.kernel import messages
from netengine.kernel.netlink import NetlinkError, NetlinkSocket
from netengine.kernel.resources import HOST, Address, Bridge, LinkUp, Namespace, Resource, Veth
from tests.kernel.machine import Machine

BRIDGES = frozenset(Bridge(f"br{n}", f"02:00:00:00:00:{n:02x}", 1500, f"netengine-br-{n}") for n in range(12))


def no_room(machine: Machine, ns: str) -> None:
    """Of the answers on this socket the kernel keeps two or three (SOCK_MIN_RCVBUF), until it is replaced."""
    sock = machine.kernel.sockets[ns]
    sock._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)


def test_what_was_made_unanswered_is_taken_back(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    before = machine.snapshot()
    no_room(machine, HOST)
    with caplog.at_level(logging.ERROR), pytest.raises(KernelRefused, match="no memory left for an answer"):
        machine.apply(BRIDGES)
    assert caplog.text == "", "taking back goes by a socket that has room"
    assert machine.snapshot() == before
    machine.build(BRIDGES)


def test_what_was_made_unanswered_in_a_sandbox_is_taken_back(machine: Machine) -> None:
    machine.build({Namespace("web"), Veth("ve1", "", "web", "eth0", "02:00:00:00:00:02", 1500), LinkUp("web", "eth0")})
    no_room(machine, "web")
    many: set[Resource] = {Address("web", "eth0", f"10.9.0.{n}/24") for n in range(1, 30)}
    with pytest.raises(KernelRefused, match="no memory left for an answer"):
        machine.apply(machine.built | many, machine.built)
    machine.must_be_as_built()
    machine.build(many)


def test_what_was_removed_unanswered_is_gone_or_said_to_be_there(machine: Machine) -> None:
    machine.build(BRIDGES)
    no_room(machine, HOST)
    with pytest.raises(KernelRefused, match="not everything could be removed"):
        machine.apply((), BRIDGES)
    assert machine.kernel.unfinished, "somebody has to look at what is left"
    machine.apply((), machine.observe())
    machine.built = frozenset()


def test_a_list_that_broke_off_is_refused_and_the_next_is_whole(machine: Machine) -> None:
    """Answers that nobody has read leave no room for the list. The socket would refuse every other one (EBUSY), or wait for
    ever."""

    def look() -> None:
        sock = NetlinkSocket()
        try:
            sock._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            for _ in range(8):
                chunk = bytearray()
                sock._encode(messages.links_dump(), 0x1 | 0x4, chunk)  # NLM_F_REQUEST | NLM_F_ACK
                sock._socket.send(chunk)
            with pytest.raises(NetlinkError, match="no memory"):
                sock.dump(messages.links_dump())
            assert len(sock.dump(messages.links_dump())) == 1
            assert sock.execute([("raise lo", messages.link_up("lo"))]) == [None]
        finally:
            sock.close()

    machine.on_kernel(look)


def test_tracked_flows_are_asked_for_anew(machine: Machine) -> None:
    """The same of the other socket that asks the kernel for lists."""

    def look() -> None:
        tracked = machine.kernel.conntrack
        assert tracked is not None
        tracked._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        header = struct.pack("=IHHIIBBH", 20, 1 << 8 | 2, 0x1 | 0x4, 7, 0, socket.AF_INET, 0, 0)  # IPCTNL_MSG_CT_DELETE
        for _ in range(20):
            tracked._socket.send(header)
        with pytest.raises(OSError, match="No buffer space"):
            tracked.forget_udp([53])
        assert tracked.forget_udp([53]) == 0

    machine.on_kernel(look)


def test_more_messages_than_answers_fit_are_all_answered(machine: Machine) -> None:
    """A thousand in one go would lose half of their answers with the buffer that most machines have (rmem_default)."""

    def ask() -> None:
        sock = NetlinkSocket()
        try:
            sock._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 212992)
            assert sock.execute([("raise lo", messages.link_up("lo"))] * 1000) == [None] * 1000
        finally:
            sock.close()

    machine.on_kernel(ask)
