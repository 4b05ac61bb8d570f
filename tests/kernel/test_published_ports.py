"""Published ports on a real kernel: from outside, from the host, from 127.0.0.1, from containers; and who holds the port."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from netengine.errors import KernelRefused
from netengine.kernel.hostports import PortTaken
from netengine.kernel.resources import HostPort, Protocol
from tests.kernel.machine import FORWARDING, Lan, Machine, port
from tests.kernel.packets import knock, tcp, udp

Talk = Callable[..., str]
all_protocols = pytest.mark.parametrize(("protocol", "talk"), [("tcp", tcp), ("udp", udp)], ids=["tcp", "udp"])


@all_protocols
def test_from_outside_with_the_client_s_own_address(
    machine: Machine, outside: Machine, protocol: str, talk: Talk
) -> None:
    web = Lan(machine).build().sandbox("web", 2, port(8080, 80, protocol=protocol))
    assert talk(outside, "192.0.2.1", 8080, web, 80) == "192.0.2.2"


@all_protocols
def test_from_the_host_by_any_of_its_addresses(machine: Machine, outside: Machine, protocol: str, talk: Talk) -> None:
    web = Lan(machine).build().sandbox("web", 2, port(8080, 80, protocol=protocol))
    for address in ("127.0.0.1", "127.0.0.2", "192.0.2.1", "10.1.0.1"):
        talk(machine, address, 8080, web, 80)


@all_protocols
def test_from_loopback_the_container_sees_its_gateway(machine: Machine, protocol: str, talk: Talk) -> None:
    """It could not answer 127.0.0.1."""
    web = Lan(machine).build().sandbox("web", 2, port(8080, 80, protocol=protocol))
    assert talk(machine, "127.0.0.1", 8080, web, 80) == "10.1.0.1"


@all_protocols
def test_hairpin_from_a_neighbour_through_the_host_s_address(
    machine: Machine, outside: Machine, protocol: str, talk: Talk
) -> None:
    lan = Lan(machine).build()
    web = lan.sandbox("web", 2, port(8080, 80, protocol=protocol))
    client = lan.sandbox("client", 3)
    for address in ("192.0.2.1", "10.1.0.1"):
        talk(client, address, 8080, web, 80)


@all_protocols
def test_hairpin_from_the_container_itself(machine: Machine, protocol: str, talk: Talk) -> None:
    web = Lan(machine).build().sandbox("web", 2, port(8080, 80, protocol=protocol))
    talk(web, "10.1.0.1", 8080, web, 80)


def test_a_port_on_loopback_is_reached_from_the_host_only(machine: Machine, outside: Machine) -> None:
    web = Lan(machine).build().sandbox("web", 2, port(8080, 80, "127.0.0.1"))
    tcp(machine, "127.0.0.1", 8080, web, 80)
    assert not outside.reaches("192.0.2.1", 8080, 0.2)


def test_a_port_on_one_address_is_not_there_on_the_others(machine: Machine, outside: Machine) -> None:
    machine.run("ip", "address", "add", "192.0.2.77/24", "dev", "up0")
    machine.keep_this()
    web = Lan(machine).build().sandbox("web", 2, port(8080, 80, "192.0.2.77"))
    assert tcp(outside, "192.0.2.77", 8080, web, 80) == "192.0.2.2"
    assert not outside.reaches("192.0.2.1", 8080, 0.2)


def test_one_number_on_two_addresses_leads_to_two_containers(machine: Machine, outside: Machine) -> None:
    lan = Lan(machine).build()
    near = lan.sandbox("near", 2, port(8080, 80, "127.0.0.1"))
    far = lan.sandbox("far", 3, port(8080, 80, "192.0.2.1"))
    tcp(machine, "127.0.0.1", 8080, near, 80)
    tcp(outside, "192.0.2.1", 8080, far, 80)


def test_tcp_and_udp_of_one_number_lead_to_two_containers(machine: Machine, outside: Machine) -> None:
    lan = Lan(machine).build()
    one, other = lan.sandbox("one", 2, port(53, 53)), lan.sandbox("other", 3, port(53, 53, protocol="udp"))
    tcp(outside, "192.0.2.1", 53, one)
    udp(outside, "192.0.2.1", 53, other)


def test_a_port_that_is_taken_back_is_closed_and_free(machine: Machine, outside: Machine) -> None:
    lan = Lan(machine).build()
    web = lan.sandbox("web", 2, port(8080, 80))
    tcp(outside, "192.0.2.1", 8080, web, 80)
    machine.take(lan.plug("web", 2, port(8080, 80)) - lan.plug("web", 2))
    with pytest.raises(ConnectionRefusedError):
        outside.connect("192.0.2.1", 8080)


def test_a_steady_udp_sender_follows_the_port_to_its_new_owner(machine: Machine, outside: Machine) -> None:
    """Its flow is tracked with the old translation for as long as it keeps sending."""
    lan = Lan(machine).build()
    published = port(5000, 5000, protocol="udp")
    lan.sandbox("first", 2, published)
    with outside.socket(socket.SOCK_DGRAM) as sender:
        sender.connect(("192.0.2.1", 5000))
        with machine.namespace("first").socket(socket.SOCK_DGRAM) as first:
            first.bind(("0.0.0.0", 5000))
            sender.send(b"one")
            assert first.recv(16) == b"one"
        machine.take(lan.plug("first", 2, published) - lan.plug("first", 2))
        with lan.sandbox("second", 3, published).socket(socket.SOCK_DGRAM) as second:
            second.bind(("0.0.0.0", 5000))
            sender.send(b"two")
            assert second.recv(16) == b"two"


# ---------------------------------------------------------------------- holding the port


@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1", "192.0.2.1"])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_second_user_of_a_held_port_is_told(
    machine: Machine, outside: Machine, protocol: Protocol, address: str
) -> None:
    machine.build({HostPort("0.0.0.0", protocol, 8080)})
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with machine.socket(kind) as rival:
        if protocol == "tcp":
            rival.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="Address already in use"):
            rival.bind((address, 8080))


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_we_are_told_of_the_first_user_of_a_port(machine: Machine, protocol: Protocol) -> None:
    with machine.socket(socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM) as owner:
        owner.bind(("127.0.0.1", 8080))
        if protocol == "tcp":
            owner.listen()
        with pytest.raises(PortTaken, match=r"^Bind for 0\.0\.0\.0:8080 failed: port is already allocated$"):
            machine.apply({HostPort("0.0.0.0", protocol, 8080)})


def test_any_free_port_is_chosen_by_the_kernel_from_its_range(machine: Machine) -> None:
    machine.sysctl("net.ipv4.ip_local_port_range", "40000 40001")
    first, second = (machine.on_kernel(machine.kernel.reserve, "0.0.0.0", "tcp", 0) for _ in range(2))
    assert {first.port, second.port} == {40000, 40001}
    with pytest.raises(PortTaken):
        machine.on_kernel(machine.kernel.reserve, "0.0.0.0", "tcp", 0)
    machine.on_kernel(machine.kernel.release, [first, second])


def test_a_connection_to_a_port_that_is_held_and_not_translated_meets_silence(machine: Machine) -> None:
    """The daemon's socket must neither accept it nor refuse it: its packet is one that came too early."""
    machine.build(FORWARDING | {HostPort("0.0.0.0", "tcp", 8080)})
    with pytest.raises(TimeoutError):
        machine.connect("127.0.0.1", 8080, timeout=0.2)


def test_a_datagram_to_a_held_port_is_not_kept(machine: Machine) -> None:
    machine.build(FORWARDING | {HostPort("0.0.0.0", "udp", 8080)})
    held = machine.kernel.held[HostPort("0.0.0.0", "udp", 8080)]
    assert held is not None
    knock(machine, "127.0.0.1", 8080)
    held.setblocking(False)
    with pytest.raises(BlockingIOError):
        held.recv(16)


def test_a_port_of_an_address_that_is_not_the_host_s_is_refused(machine: Machine) -> None:
    with pytest.raises(KernelRefused, match=r"203\.0\.113\.9 is not an address of this host"):
        machine.apply({HostPort("203.0.113.9", "tcp", 8080)})
