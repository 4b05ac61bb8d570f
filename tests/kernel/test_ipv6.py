"""IPv6 with packets: who reaches whom, what a network without it does not have, what the network may not tell anybody."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import Ether

from netengine.kernel.resources import Address, LinkUp, Namespace, Route, Sysctl
from netengine.kernel.surroundings import Uplink, neighbours, uplink
from netengine.kernel.theirs import host_routes, router_listeners
from tests.hosts import wait_until
from tests.kernel.machine import RUN_DIR, Lan, Machine, box
from tests.kernel.packets import Ear, listening, ping, send_frame, tcp, udp

SUBNET6 = "fd00:1::/64"
ALL_NODES = "33:33:00:00:00:01"


@pytest.fixture
def dual(machine: Machine) -> Lan:
    return Lan(machine, subnet6=SUBNET6).build()


def inside(machine: Machine, ns: str, *words: str) -> str:
    return machine.run("nsenter", f"--net={RUN_DIR / ns}", *words)


# ---------------------------------------------------------------------- who reaches whom


@pytest.mark.parametrize("talk", [tcp, udp])
def test_neighbours_talk_over_both_families(dual: Lan, talk: Callable[..., str]) -> None:
    web, client = dual.sandbox("web", 2), dual.sandbox("client", 3)
    assert talk(client, "10.1.0.2", 80, web) == "10.1.0.3"
    assert talk(client, "fd00:1::2", 80, web) == "fd00:1::3"


def test_the_host_and_its_containers_reach_each_other(machine: Machine, dual: Lan) -> None:
    web = dual.sandbox("web", 2)
    assert ping(machine, "fd00:1::2") == "fd00:1::2"
    assert tcp(web, "fd00:1::1", 7000, machine) == "fd00:1::2"
    assert ping(web, "2001:db8::1" if "up0" in machine.links() else "fd00:1::1")


def test_the_default_route_leads_to_another_machine(machine: Machine, outside: Machine) -> None:
    lan = Lan(machine, subnet6=SUBNET6, options={"com.docker.network.bridge.enable_ip_masquerade": "false"}).build()
    web = lan.sandbox("web", 2)
    outside.run("ip", "route", "add", SUBNET6, "via", "2001:db8::1")
    outside.keep_this()
    assert tcp(web, "2001:db8::2", 7000, outside) == "fd00:1::2"


def test_who_comes_from_outside_finds_a_new_container(machine: Machine, outside: Machine) -> None:
    unprotected = {"com.docker.network.bridge.gateway_mode_ipv6": "nat-unprotected"}
    lan = Lan(machine, subnet6=SUBNET6, options=unprotected).build()
    outside.run("ip", "route", "add", SUBNET6, "via", "2001:db8::1")
    outside.keep_this()
    lan.sandbox("web", 2)
    assert ping(outside, "fd00:1::2") == "fd00:1::2"


def test_a_sandbox_with_ipv6_alone(machine: Machine) -> None:
    lan = Lan(machine, subnet6=SUBNET6).build()
    plugs = {
        ns: {
            r
            for r in lan.plug(ns, number)
            if not (isinstance(r, Address | Route) and "." in getattr(r, "interface", getattr(r, "gateway", "")))
        }
        for ns, number in (("web", 2), ("client", 3))
    }
    machine.build(box("web") | box("client") | plugs["web"] | plugs["client"])
    web, client = machine.namespace("web"), machine.namespace("client")
    assert tcp(client, "fd00:1::2", 80, web) == "fd00:1::3"
    assert "inet 10." not in inside(machine, "web", "ip", "address")


def test_a_point_to_point_subnet(machine: Machine) -> None:
    lan = Lan(machine, subnet6="fd00:9::/127")
    lan.network.subnets[1].gateway = lan.gateway6 = "fd00:9::"
    lan.build()
    machine.build(box("web") | lan.plug("web", 1))
    assert ping(machine, "fd00:9::1") == "fd00:9::1"


# ---------------------------------------------------------------------- a network without it


def test_a_network_without_ipv6_has_nothing_of_it(machine: Machine) -> None:
    lan = Lan(machine).build()
    lan.sandbox("web", 2)
    assert "inet6" not in machine.run("ip", "address", "show", "dev", "br0")
    assert "inet6" not in machine.run("ip", "address", "show", "dev", "vwebbr0")
    links = inside(machine, "web", "ip", "address", "show", "dev", "eth0")
    assert "inet6" not in links
    assert "inet6 ::1/128" in inside(machine, "web", "ip", "address", "show", "dev", "lo")


def test_one_sandbox_on_a_network_of_each_kind(machine: Machine, dual: Lan) -> None:
    plain = Lan(machine, "br1", "10.2.0.0/24").build()
    dual.sandbox("web", 2)
    machine.build(plain.plug("web", 2, link="eth1", is_gateway=False))
    assert "inet6 fd00:1::2/64" in inside(machine, "web", "ip", "address", "show", "dev", "eth0")
    assert "inet6" not in inside(machine, "web", "ip", "address", "show", "dev", "eth1")


def test_a_network_of_both_kinds_after_one_of_ipv4(machine: Machine, dual: Lan) -> None:
    """Connected while it runs: the link that comes later has IPv6, the one that was there still has not."""
    plain = Lan(machine, "br1", "10.2.0.0/24").build()
    plain.sandbox("web", 2)
    machine.build(dual.plug("web", 5, link="eth1", is_gateway=False))
    client = dual.sandbox("client", 3)
    assert tcp(client, "fd00:1::5", 80, machine.namespace("web")) == "fd00:1::3"
    assert "inet6" not in inside(machine, "web", "ip", "address", "show", "dev", "eth0")


# ---------------------------------------------------------------------- addresses at once, and announced


def _solicited_or_not(frame: Ether, address: str) -> bool:
    return ICMPv6ND_NA in frame and frame[ICMPv6ND_NA].tgt == address and not frame[ICMPv6ND_NA].S


def test_an_address_is_usable_at_once_and_announced(machine: Machine, dual: Lan) -> None:
    neighbour = dual.sandbox("client", 3)
    endpoint = box("web") | dual.plug("web", 2, mac="02:00:00:00:aa:02")
    machine.build({r for r in endpoint if not isinstance(r, LinkUp | Route)})
    with listening(neighbour, "eth0") as ear:
        machine.build(endpoint)
        heard = ear.hear(lambda f: _solicited_or_not(f, "fd00:1::2"))
    assert (heard.src, heard.dst, heard[ICMPv6ND_NA].O) == ("02:00:00:00:aa:02", ALL_NODES, 1)
    assert "tentative" not in inside(machine, "web", "ip", "-6", "address", "show", "scope", "global")


def test_a_neighbour_takes_up_a_reused_address_at_once(machine: Machine, dual: Lan) -> None:
    """Without the announcement it would go on sending to the old MAC for some seconds."""
    client = dual.sandbox("client", 3)
    first = dual.sandbox("first", 2, mac="02:00:00:00:aa:01")
    tcp(client, "fd00:1::2", 80, first)
    machine.take(box("first") | dual.plug("first", 2, mac="02:00:00:00:aa:01"))
    second = dual.sandbox("second", 2, mac="02:00:00:00:aa:02")
    assert tcp(client, "fd00:1::2", 80, second) == "fd00:1::3"


# ---------------------------------------------------------------------- nobody plays the router


def _advertisement(prefix: str) -> Ether:
    """A router's: "I am the way out, and this is your prefix"."""
    source = IPv6(src="fe80::bad", dst="ff02::1", hlim=255)
    options = ICMPv6NDOptPrefixInfo(prefix=prefix, prefixlen=64) / ICMPv6NDOptSrcLLAddr(lladdr="02:00:00:00:bb:ad")
    return Ether(src="02:00:00:00:bb:ad", dst=ALL_NODES) / source / ICMPv6ND_RA(routerlifetime=1800) / options


def test_nobody_believes_a_container_that_advertises_itself_as_router(machine: Machine, dual: Lan) -> None:
    """CVE-2020-10749. Whether it was taken is asked after an echo that was sent behind it has been answered."""
    attacker, victim = dual.sandbox("attacker", 2), dual.sandbox("victim", 3)
    send_frame(attacker, "eth0", _advertisement("fd00:bad::"))
    assert ping(attacker, "fd00:1::3") and ping(attacker, "fd00:1::1")
    for shown in (inside(machine, "victim", "ip", "-6", "route"), machine.run("ip", "-6", "route")):
        assert "fe80::bad" not in shown
        assert "fd00:bad" not in shown
    assert "fd00:bad" not in inside(machine, "victim", "ip", "-6", "address")
    assert victim.links()


def test_no_container_asks_for_a_router(machine: Machine, dual: Lan) -> None:
    neighbour = dual.sandbox("client", 3)
    with listening(neighbour, "eth0") as ear:
        web = dual.sandbox("web", 2)
        ping(web, "fd00:1::3")
        with pytest.raises(AssertionError):
            ear.hear(lambda f: ICMPv6ND_RS in f, 0.2)


# ---------------------------------------------------------------------- the host around it


def test_the_host_s_routes_are_known_and_its_link_local_ones_are_none(machine: Machine, outside: Machine) -> None:
    machine.run("ip", "route", "add", "fd00:77::/64", "via", "2001:db8::2")
    machine.keep_this()
    seen = {str(prefix) for prefix in machine.on_kernel(host_routes, machine.kernel)}
    assert {"2001:db8::/64", "fd00:77::/64", "192.0.2.0/24"} <= seen
    assert not any(prefix.startswith("fe80") for prefix in seen)


def test_the_uplink_of_a_host_with_ipv6_alone(machine: Machine, outside: Machine) -> None:
    assert machine.on_kernel(uplink, machine.kernel) is None
    machine.run("ip", "-6", "route", "add", "default", "via", "2001:db8::2", "mtu", "1400")
    machine.keep_this()
    assert machine.on_kernel(uplink, machine.kernel) == Uplink("up0", 1400)


def test_both_neighbour_tables_tell_how_much_they_take(machine: Machine) -> None:
    tables = [machine.on_kernel(neighbours, machine.kernel, version) for version in (4, 6)]
    assert all(table is not None and table.most >= 128 for table in tables)


@pytest.fixture
def router(machine: Machine, outside: Machine) -> Iterator[Ear]:
    """The machine has learnt its default route from an advertisement on up0."""
    machine.run("sysctl", "-qw", "net.ipv6.conf.up0.accept_ra=1")
    with listening(outside, "up0") as ear:
        send_frame(outside, "up0", _advertisement("2001:db8:5::"))
        wait_until(lambda: "proto ra" in machine.run("ip", "-6", "route"), "the advertised route is there")
        machine.keep_this()
        yield ear


def test_links_that_listen_to_routers_are_found(machine: Machine, outside: Machine) -> None:
    machine.run("ip", "link", "add", "theirs", "type", "bridge")
    machine.keep_this()
    Lan(machine, subnet6=SUBNET6).build()
    listeners = machine.on_kernel(router_listeners, machine.kernel)
    assert "up0" in listeners
    assert not {"br0", "lo"} & set(listeners)
    machine.run("sysctl", "-qw", "net.ipv6.conf.up0.accept_ra=2")
    machine.run("sysctl", "-qw", "net.ipv6.conf.theirs.accept_ra=0")
    assert machine.on_kernel(router_listeners, machine.kernel) == []


@pytest.mark.parametrize(("accept_ra", "stays"), [("1", False), ("2", True)])
def test_a_host_that_forwards_keeps_that_route_only_if_told_to(
    machine: Machine, router: Ear, accept_ra: str, stays: bool
) -> None:
    """What engine/forwarding.py takes care of is what the kernel really does."""
    machine.run("sysctl", "-qw", f"net.ipv6.conf.up0.accept_ra={accept_ra}")
    machine.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
    assert ("proto ra" in machine.run("ip", "-6", "route")) == stays
    machine.keep_this()


# ---------------------------------------------------------------------- put right


@pytest.mark.parametrize(
    "command",
    [
        "ip address del fd00:1::1/64 dev br0",
        "ip link set br0 down",
        "ip link set br0 mtu 1000",  # which takes IPv6 off it
        "ip link set vwebbr0 mtu 1000",
        "sysctl -qw net.ipv6.conf.br0.disable_ipv6=1",
        "sysctl -qw net.ipv6.conf.br0.accept_ra=2",
        "sysctl -qw net.ipv6.conf.all.forwarding=0",
        "web ip address del fd00:1::2/64 dev eth0",
        "web ip -6 route del default",
        "web ip -6 route replace default via fd00:1::9 dev eth0 proto 110",
        "web ip link set eth0 down",
        "web ip link set eth0 mtu 1000",
        "web sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1",
        "web sysctl -qw net.ipv6.conf.all.disable_ipv6=1",
        "web sysctl -qw net.ipv6.conf.eth0.accept_ra=1",
    ],
)
def test_healed(machine: Machine, dual: Lan, command: str) -> None:
    web, client = dual.sandbox("web", 2), dual.sandbox("client", 3)
    words = command.removeprefix("web ").split()
    if command.startswith("web "):
        inside(machine, "web", *words)
    else:
        machine.run(*words)
    machine.heal()
    assert tcp(client, "fd00:1::2", 80, web) == "fd00:1::3"
    assert tcp(web, "fd00:1::1", 7000, machine) == "fd00:1::2"
    assert "inet6" not in machine.run("ip", "address", "show", "dev", "vwebbr0"), "a port has no address of its own"


def test_a_sysctl_of_its_owner_keeps_ipv6_out(machine: Machine, dual: Lan) -> None:
    """What engine/sandbox.py renders then: no address, and the switch."""
    plug = {r for r in dual.plug("web", 2) if not isinstance(r, Sysctl) and "fd00" not in str(r)}
    machine.build({Namespace("web"), LinkUp("web", "lo"), Sysctl("web", "net/ipv6/conf/all/disable_ipv6", "1"), *plug})
    assert "inet6" not in inside(machine, "web", "ip", "address")
    with (
        machine.namespace("web").socket(family=socket.AF_INET6) as sock,
        pytest.raises(OSError, match="address"),
    ):
        sock.bind(("::1", 80))
