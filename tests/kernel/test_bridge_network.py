"""A bridge network on a real kernel: who reaches whom, seen by packets that arrive or do not."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Ether

from netengine.kernel.resources import MARK_GROUP, Element, LinkUp, Route
from tests.hosts import Namespace, wait_until
from tests.kernel.machine import FORWARDING, STRANGERS_STAY_OUT, Lan, Machine, box, cable, port
from tests.kernel.packets import knock, listening, ping, send_frame, tcp, udp

MAC = "02:00:00:00:aa:02"
NOT_PUBLISHED = "not published"
NO_DIRECT_ACCESS = "direct access from outside to a container"
TALK = {"tcp": tcp, "udp": udp}
Talk = Callable[..., str]
all_protocols = pytest.mark.parametrize("talk", TALK.values(), ids=TALK)


def is_reached(client: Namespace, address: str, server: Namespace) -> bool:
    """Whether a datagram arrives. Nothing else is sent, so that a wait for one that never comes is the only cost."""
    with server.socket(socket.SOCK_DGRAM, timeout=0.2) as there:
        there.bind(("0.0.0.0", 7))
        knock(client, address, 7)
        try:
            return there.recv(16) == b"knock"
        except TimeoutError:
            return False


def is_counted(machine: Machine, reason: str) -> None:
    """One datagram is dropped for that reason; a second later, when the first question for the gateway's MAC was lost."""
    wait_until(lambda: machine.dropped(reason) == 1, f"dropped: {reason}")


# ---------------------------------------------------------------------- one network


@all_protocols
def test_two_sandboxes_on_one_bridge_talk(machine: Machine, talk: Talk) -> None:
    lan = Lan(machine).build()
    web, client = lan.sandbox("web", 2), lan.sandbox("client", 3)
    assert talk(client, "10.1.0.2", 80, web) == "10.1.0.3", "no address translation between neighbours"


def test_two_sandboxes_on_one_bridge_ping_each_other(machine: Machine) -> None:
    lan = Lan(machine).build()
    lan.sandbox("web", 2)
    assert ping(lan.sandbox("client", 3), "10.1.0.2") == "10.1.0.2"


@all_protocols
def test_the_host_and_its_sandbox_reach_each_other(machine: Machine, talk: Talk) -> None:
    web = Lan(machine).build().sandbox("web", 2)
    assert talk(machine, "10.1.0.2", 80, web) == "10.1.0.1"
    assert talk(web, "10.1.0.1", 81, machine) == "10.1.0.2"


@all_protocols
def test_a_sandbox_reaches_the_outside_under_the_host_s_address(machine: Machine, outside: Machine, talk: Talk) -> None:
    web = Lan(machine).build().sandbox("web", 2)
    assert talk(web, "192.0.2.2", 80, outside) == "192.0.2.1"


def test_a_sandbox_pings_the_outside(machine: Machine, outside: Machine) -> None:
    web = Lan(machine).build().sandbox("web", 2)
    assert ping(web, "192.0.2.2") == "192.0.2.2"


def test_without_masquerading_the_sandbox_s_own_address_is_seen(machine: Machine, outside: Machine) -> None:
    lan = Lan(machine, options={"com.docker.network.bridge.enable_ip_masquerade": "false"}).build()
    outside.run("ip", "route", "add", "10.1.0.0/24", "via", "192.0.2.1")
    outside.keep_this()
    assert tcp(lan.sandbox("web", 2), "192.0.2.2", 80, outside) == "10.1.0.2"


def test_large_packets_pass_whole_at_the_network_s_mtu(machine: Machine) -> None:
    lan = Lan(machine, options={"com.docker.network.driver.mtu": "9000"}).build()
    web, client = lan.sandbox("web", 2), lan.sandbox("client", 3)
    with listening(web, "eth0") as ear:
        with client.socket(socket.SOCK_DGRAM) as sock:
            sock.sendto(b"x" * 8000, ("10.1.0.2", 7))
        assert len(ear.hear(lambda f: UDP in f)) > 8000


# ---------------------------------------------------------------------- announcing


def test_an_endpoint_that_comes_up_announces_its_address(machine: Machine) -> None:
    """Also when the kernel took its time: a bridge port without a carrier is closed, and opens a moment after it has one."""
    lan = Lan(machine).build()
    neighbour = lan.sandbox("client", 3)
    endpoint = box("web") | lan.plug("web", 2, mac="02:00:00:00:aa:02")
    machine.build({r for r in endpoint if not isinstance(r, LinkUp | Route)})
    wait_until(lambda: "state disabled" in machine.run("bridge", "link", "show", "dev", "vwebbr0"), "a closed port")
    with listening(neighbour, "eth0") as ear:
        machine.build(endpoint)
        heard = ear.hear(lambda f: ARP in f and f[ARP].psrc == f[ARP].pdst == "10.1.0.2")
    assert heard[ARP].hwsrc == "02:00:00:00:aa:02"
    assert heard.dst == "ff:ff:ff:ff:ff:ff"


def test_a_neighbour_takes_up_a_reused_address_at_once(machine: Machine) -> None:
    """Without the announcement it would go on sending to the old MAC for some seconds."""
    lan = Lan(machine).build()
    client = lan.sandbox("client", 3)
    first = lan.sandbox("first", 2, mac="02:00:00:00:aa:01")
    tcp(client, "10.1.0.2", 80, first)
    machine.take(box("first") | lan.plug("first", 2, mac="02:00:00:00:aa:01"))
    second = lan.sandbox("second", 2, mac="02:00:00:00:aa:02")
    assert tcp(client, "10.1.0.2", 80, second) == "10.1.0.3"


# ---------------------------------------------------------------------- isolation


def test_two_networks_do_not_reach_each_other(machine: Machine) -> None:
    one, other = Lan(machine, "br0", "10.1.0.0/24").build(), Lan(machine, "br1", "10.2.0.0/24").build()
    here, there = one.sandbox("here", 2), other.sandbox("there", 2)
    assert not is_reached(here, "10.2.0.2", there)
    is_counted(machine, NOT_PUBLISHED)


def test_a_published_port_joins_two_networks(machine: Machine) -> None:
    """Through the host's address, as from anywhere else."""
    one, other = Lan(machine, "br0", "10.1.0.0/24").build(), Lan(machine, "br1", "10.2.0.0/24").build()
    here, there = one.sandbox("here", 2), other.sandbox("there", 2, port(8080, 80))
    tcp(here, "10.1.0.1", 8080, there, 80)


def test_a_sandbox_on_two_networks_reaches_both(machine: Machine) -> None:
    one, other = Lan(machine, "br0", "10.1.0.0/24").build(), Lan(machine, "br1", "10.2.0.0/24").build()
    here, there = one.sandbox("here", 2), other.sandbox("there", 2)
    both = one.sandbox("both", 9)
    machine.build(other.plug("both", 9, link="eth1", is_gateway=False))
    assert tcp(both, "10.1.0.2", 80, here) == "10.1.0.9"
    assert tcp(both, "10.2.0.2", 80, there) == "10.2.0.9"


def test_without_icc_neighbours_do_not_hear_each_other(machine: Machine) -> None:
    lan = Lan(machine, options={"com.docker.network.bridge.enable_icc": "false"}).build()
    web, client = lan.sandbox("web", 2), lan.sandbox("client", 3)
    with listening(web, "eth0") as ear:
        knock(client, "10.1.0.2", 7)
        # The host, which an isolated port does reach, speaks after the neighbour: what came before would be heard before.
        knock(machine, "10.1.0.2", 8)
        first = ear.hear(lambda f: (ARP in f and f[ARP].pdst == "10.1.0.2") or UDP in f)
    assert first[ARP].psrc == "10.1.0.1", "the neighbour's ARP request came through"


def test_without_icc_a_neighbour_is_not_reached_around_the_bridge(machine: Machine) -> None:
    """With the gateway as next hop, packets are forwarded by the host instead of the bridge."""
    lan = Lan(machine, options={"com.docker.network.bridge.enable_icc": "false"}).build()
    web, client = lan.sandbox("web", 2), lan.sandbox("client", 3)
    gateway = Route("client", "10.1.0.2/32", "eth0", "10.1.0.1")
    machine.build({gateway})
    assert not is_reached(client, "10.1.0.2", web)
    assert machine.dropped(NOT_PUBLISHED) >= 1


def test_without_icc_the_outside_is_reached_all_the_same(machine: Machine, outside: Machine) -> None:
    lan = Lan(machine, options={"com.docker.network.bridge.enable_icc": "false"}).build()
    assert ping(lan.sandbox("web", 2), "192.0.2.2") == "192.0.2.2"


# ---------------------------------------------------------------------- internal


def test_an_internal_network_s_sandboxes_talk(machine: Machine) -> None:
    lan = Lan(machine, internal=True).build()
    web, client = lan.sandbox("web", 2), lan.sandbox("client", 3)
    assert tcp(client, "10.1.0.2", 80, web) == "10.1.0.3"


def test_an_internal_network_does_not_lead_out(machine: Machine, outside: Machine) -> None:
    """Not even for a sandbox that sets a route of its own."""
    lan = Lan(machine, internal=True).build()
    web = lan.sandbox("web", 2)
    machine.build({Route("web", "default", "eth0", "10.1.0.1")})
    assert not is_reached(web, "192.0.2.2", outside)
    is_counted(machine, "out of an internal network")


def test_an_internal_network_is_not_entered_from_outside(machine: Machine, outside: Machine) -> None:
    lan = Lan(machine, internal=True).build()
    web = lan.sandbox("web", 2)
    outside.run("ip", "route", "add", "10.1.0.0/24", "via", "192.0.2.1")
    outside.keep_this()
    assert not is_reached(outside, "10.1.0.2", web)


def test_an_internal_network_is_not_entered_from_the_network_next_to_it(machine: Machine) -> None:
    inside = Lan(machine, "br0", "10.1.0.0/24", internal=True).build().sandbox("inside", 2)
    client = Lan(machine, "br1", "10.2.0.0/24").build().sandbox("client", 2)
    assert not is_reached(client, "10.1.0.2", inside)
    is_counted(machine, "into an internal network")


# ---------------------------------------------------------------------- what comes from outside, or pretends to


def test_direct_access_from_outside_is_dropped(machine: Machine, outside: Machine) -> None:
    web = Lan(machine).build().sandbox("web", 2, port(8080, 7, protocol="udp"))
    outside.run("ip", "route", "add", "10.1.0.0/24", "via", "192.0.2.1")
    outside.keep_this()
    assert not is_reached(outside, "10.1.0.2", web), "published is the host's port, not the container's address"
    is_counted(machine, NO_DIRECT_ACCESS)


@pytest.mark.parametrize("untracked", [False, True], ids=["tracked", "untracked"])
def test_no_rule_of_the_user_s_opens_direct_access(machine: Machine, outside: Machine, untracked: bool) -> None:
    """A rule that lets a machine reach published ports is not meant for all else that a container listens on."""
    web = Lan(machine).build().sandbox("web", 2, port(8080, 80))
    outside.run("ip", "route", "add", "10.1.0.0/24", "via", "192.0.2.1")
    outside.keep_this()
    machine.run("nft", "add", "rule", "ip", "netengine", "user-forward", "accept")
    if untracked:
        table = "add table ip mine\nadd chain ip mine c { type filter hook prerouting priority -350; }\n"
        machine.run("nft", "-f", "-", stdin=f"{table}add rule ip mine c ip daddr 10.1.0.2 notrack\n")
    tcp(outside, "192.0.2.1", 8080, web, 80)
    assert not is_reached(outside, "10.1.0.2", web)
    is_counted(machine, NO_DIRECT_ACCESS)
    if untracked:
        machine.run("nft", "delete", "table", "ip", "mine")


@pytest.mark.parametrize(("link", "group"), [("br0", "default"), ("up0", str(MARK_GROUP))], ids=["not ours", "ours"])
def test_no_isolation_hangs_on_a_group(machine: Machine, outside: Machine, link: str, group: str) -> None:
    """By the group of its interface a packet is only spared look-ups: with a wrong one all is as it should be."""
    lan = Lan(machine).build()
    web, client = lan.sandbox("web", 2, port(8080, 80)), lan.sandbox("client", 3, mac=MAC)
    outside.run("ip", "route", "add", "10.1.0.0/24", "via", "192.0.2.1")
    outside.keep_this()
    before = machine.json("ip", "-j", "link", "show", link)[0]["group"]
    machine.run("ip", "link", "set", link, "group", group)
    tcp(client, "10.1.0.2", 80, web)
    for who, address in ((client, "10.1.0.1"), (web, "10.1.0.1"), (outside, "192.0.2.1")):
        tcp(who, address, 8080, web, 80)
    assert tcp(client, "192.0.2.2", 80, outside) == "192.0.2.1"
    assert not is_reached(outside, "10.1.0.2", web)
    with machine.socket(socket.SOCK_DGRAM, timeout=0.2) as service:
        service.bind(("0.0.0.0", 7))
        bridge = machine.json("ip", "-j", "link", "show", "br0")[0]["address"]
        for source, target in (("127.0.0.1", "10.1.0.1"), ("10.1.0.3", "127.0.0.1")):
            send_frame(
                client, "eth0", Ether(src=MAC, dst=bridge) / IP(src=source, dst=target) / UDP(dport=7) / b"hello"
            )
        wait_until(lambda: machine.dropped("nor pretend to be it"), "a drop to be counted")
        wait_until(lambda: machine.dropped("a container may not reach the host's loopback"), "a drop to be counted")
        with pytest.raises(TimeoutError):
            service.recv(16)
    machine.run("ip", "link", "set", link, "group", before)


def test_a_sandbox_cannot_pretend_to_be_the_host_s_loopback(machine: Machine) -> None:
    lan = Lan(machine).build()
    web = lan.sandbox("web", 2, mac=MAC)
    with machine.socket(socket.SOCK_DGRAM, timeout=0.2) as service:
        service.bind(("0.0.0.0", 7))
        bridge = machine.json("ip", "-j", "link", "show", "br0")[0]["address"]
        send_frame(
            web, "eth0", Ether(src=MAC, dst=bridge) / IP(src="127.0.0.1", dst="10.1.0.1") / UDP(dport=7) / b"trust me"
        )
        wait_until(lambda: machine.dropped("nor pretend to be it"), "the drop to be counted")
        with pytest.raises(TimeoutError):
            service.recv(16)


def test_a_sandbox_cannot_reach_the_host_s_loopback(machine: Machine) -> None:
    """route_localnet, which connections from 127.0.0.1 to published ports need, would let it."""
    lan = Lan(machine).build()
    web = lan.sandbox("web", 2, mac=MAC)
    with machine.socket(socket.SOCK_DGRAM, timeout=0.2) as service:
        service.bind(("127.0.0.1", 7))
        bridge = machine.json("ip", "-j", "link", "show", "br0")[0]["address"]
        send_frame(
            web, "eth0", Ether(src=MAC, dst=bridge) / IP(src="10.1.0.2", dst="127.0.0.1") / UDP(dport=7) / b"hello"
        )
        wait_until(lambda: machine.dropped("a container may not reach the host's loopback"), "a drop to be counted")
        with pytest.raises(TimeoutError):
            service.recv(16)


# ---------------------------------------------------------------------- packets that are none of ours


@pytest.fixture
def third(machine: Machine, outside: Machine, make_machine: Callable[[str], Machine]) -> Machine:
    """A machine on the other side of `machine`, as seen from `outside`; both have it as their gateway."""
    other = make_machine("gamma")
    cable(machine, other, "198.51.100", "up1")
    for far, gateway in ((outside, "192.0.2.1"), (other, "198.51.100.1")):
        far.run("ip", "route", "add", "default", "via", gateway)
        far.keep_this()
    return other


def test_what_was_not_forwarded_is_not_forwarded_now(machine: Machine, outside: Machine, third: Machine) -> None:
    """netengine turned ip_forward on for its own bridges; the host does not become a router by that."""
    web = Lan(machine).build().sandbox("web", 2, port(8080, 80))
    machine.build({STRANGERS_STAY_OUT})
    assert not is_reached(outside, "198.51.100.2", third)
    tcp(outside, "192.0.2.1", 8080, web, 80)
    tcp(web, "198.51.100.2", 80, third)


@pytest.fixture
def guests(machine: Machine, make_machine: Callable[[str], Machine]) -> list[Machine]:
    """Two machines on a bridge that is not netengine's, 10.7.0.2 and .3, and one on another, 10.8.0.2, as virtual ones are."""
    for bridge, subnet in (("their0", 7), ("their1", 8)):
        machine.run("ip", "link", "add", bridge, "type", "bridge")
        machine.run("sysctl", "-qw", f"net.ipv6.conf.{bridge}.disable_ipv6=0", f"net.ipv6.conf.{bridge}.accept_dad=0")
        machine.run("ip", "address", "add", f"10.{subnet}.0.1/24", "dev", bridge)
        machine.run("ip", "address", "add", f"fd00:{subnet}::1/64", "dev", bridge, "nodad")
        machine.run("ip", "link", "set", bridge, "up")
    made = []
    for name, bridge, subnet, number in (("one", "their0", 7, 2), ("two", "their0", 7, 3), ("far", "their1", 8, 2)):
        guest = make_machine(name)
        machine.run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(guest.tid))
        machine.run("ip", "link", "set", name, "master", bridge, "up")
        guest.run("sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=0", "net.ipv6.conf.eth0.accept_dad=0")
        guest.run("ip", "address", "add", f"10.{subnet}.0.{number}/24", "dev", "eth0")
        guest.run("ip", "address", "add", f"fd00:{subnet}::{number}/64", "dev", "eth0", "nodad")
        guest.run("ip", "link", "set", "eth0", "up")
        guest.run("ip", "route", "add", "default", "via", f"10.{subnet}.0.1")
        guest.run("ip", "route", "add", "default", "via", f"fd00:{subnet}::1")
        guest.keep_this()
        made.append(guest)
    machine.keep_this()
    return made


@pytest.mark.needs("br_netfilter")
def test_bridges_of_others_go_on_where_their_packets_pass_the_rules(machine: Machine, guests: list[Machine]) -> None:
    """With br_netfilter what stays within a bridge comes by the forward hook, as what is forwarded between two does."""
    one, two, far = guests
    for family in ("ip", "ip6"):
        assert machine.sysctl(f"net.bridge.bridge-nf-call-{family}tables") == "1"
    assert (ping(one, "10.7.0.3"), ping(one, "fd00:7::3", 5)) == ("10.7.0.3", "fd00:7::3")
    web = Lan(machine, subnet6="fd00:1::/64").build().sandbox("web", 2, port(8080, 80))
    strangers = {STRANGERS_STAY_OUT, Element("ip6", "strangers", ("ip6",), ("drop",))}
    machine.build(strangers)
    assert (ping(two, "10.7.0.2"), ping(two, "fd00:7::2", 5)) == ("10.7.0.2", "fd00:7::2")
    tcp(one, "10.7.0.3", 80, two)
    udp(one, "fd00:7::3", 80, two, listens_at="::")
    for address in ("10.8.0.2", "fd00:8::2"):
        with pytest.raises(TimeoutError):
            ping(one, address, 0.3)
    tcp(one, "10.7.0.1", 8080, web, 80)
    tcp(web, "10.8.0.2", 80, far)
    machine.take(strangers)
    assert (ping(one, "10.8.0.2"), ping(one, "fd00:8::2", 5)) == ("10.8.0.2", "fd00:8::2")


def test_a_host_that_was_a_router_remains_one(machine: Machine, outside: Machine, third: Machine) -> None:
    machine.build(FORWARDING)
    assert is_reached(outside, "198.51.100.2", third)
