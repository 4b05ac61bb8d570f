"""Gateway modes: who reaches a container, by its own address and by the host's, from where. Real packets, one table."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import pytest

from netengine.drivers import bridge_options as options
from netengine.kernel.resources import Family
from tests.gatewaymodes import EXPECTED, MODES, NO, PROBES, SENDERS, YES, as_text
from tests.hosts import Namespace
from tests.kernel.machine import Lan, Machine, cable, port
from tests.kernel.packets import ping, tcp
from tests.patience import patient

HOST_ADDRESS: dict[Family, str] = {"ip": "192.0.2.1", "ip6": "2001:db8::1"}
PUBLISHED, UNPUBLISHED = 80, 81
TIMEOUT = 0.5
"""Seconds until a probe counts as lost. What is let through takes less than one of a thousand of that."""

families = pytest.mark.parametrize("family", list(HOST_ADDRESS))


class World:
    """A network of each mode with a server and a neighbour, another network with a client, a machine outside that has routes
    to all of them."""

    def __init__(self, machine: Machine, outside: Machine, family: Family) -> None:
        self.machine, self.outside, self.family = machine, outside, family
        self.lans: dict[str, Lan] = {}
        self.servers: dict[str, Namespace] = {}
        self.neighbours: dict[str, Namespace] = {}
        self.sockets: list[Any] = []
        for number, mode in enumerate(MODES):
            lan = Lan(
                machine,
                f"b-{mode}"[:15],
                f"10.{number + 1}.0.0/24",
                f"fd00:{number + 1}::/64",
                internal=mode == "isolated",
                options=dict.fromkeys(options.GATEWAY_MODE.values(), mode),
            ).build()
            # In the model, as the engine makes it: no port of the host where none is used.
            host_port = 0 if mode in ("routed", "isolated") else 8001 + number
            published = [port(host_port, PUBLISHED, host_ip) for host_ip in ("0.0.0.0", "::")]
            self.lans[mode] = lan
            self.servers[mode] = lan.sandbox(f"s{number}", 2, *published)
            self.neighbours[mode] = lan.sandbox(f"n{number}", 3)
            for where in (PUBLISHED, UNPUBLISHED):
                self.sockets.append(self.servers[mode].listen(where, "0.0.0.0" if family == "ip" else "::"))
            outside.run("ip", "route", "add", str(self.subnet(mode)), "via", HOST_ADDRESS[family])
        self.another = Lan(machine, "another", "10.9.0.0/24", "fd00:9::/64").build().sandbox("other", 2)
        outside.keep_this()

    def subnet(self, mode: str) -> IPv4Network | IPv6Network:
        found = self.lans[mode].subnet if self.family == "ip" else self.lans[mode].subnet6
        assert found is not None
        return found

    def sender(self, name: str, mode: str) -> Namespace:
        return {
            "outside": self.outside,
            "another bridge": self.another,
            "the same bridge": self.neighbours[mode],
            "the host": self.machine,
        }[name]

    def probe(self, mode: str, sender: str, what: str) -> str:
        source, target = self.sender(sender, mode), str(self.subnet(mode)[2])
        tries: dict[str, Callable[[], object]] = {
            "ping": lambda: ping(source, target, TIMEOUT),
            "published": lambda: source.connect(target, PUBLISHED, TIMEOUT).close(),
            "unpublished": lambda: source.connect(target, UNPUBLISHED, TIMEOUT).close(),
            PROBES[3]: lambda: source.connect(HOST_ADDRESS[self.family], 8001 + MODES.index(mode), TIMEOUT).close(),
        }
        try:
            tries[what]()
        except OSError:
            return NO
        return YES

    def seen(self) -> dict[tuple[str, str], tuple[str, ...]]:
        with ThreadPoolExecutor(16) as pool:
            asked = {
                (mode, sender): [pool.submit(self.probe, mode, sender, what) for what in PROBES]
                for mode in MODES
                for sender in SENDERS
            }
            return {key: tuple(answer.result() for answer in answers) for key, answers in asked.items()}

    def close(self) -> None:
        for opened in self.sockets:
            opened.close()


@families
def test_what_each_mode_lets_through(machine: Machine, outside: Machine, family: Family) -> None:
    world = World(machine, outside, family)
    try:
        seen = world.seen()
    finally:
        world.close()
    print(as_text(seen))
    assert as_text(seen) == as_text(EXPECTED)


# ---------------------------------------------------------------------- beside the modes

BRIDGE = "com.docker.network.bridge."


class Site:
    """A network with a server that listens on a published and an unpublished port, and a machine outside with a route to it."""

    def __init__(self, machine: Machine, outside: Machine, family: Family, direct: bool = False, **opts: str) -> None:
        self.outside, self.family = outside, family
        named = {
            f"{BRIDGE}{name}" if "host_ip" not in name else f"com.docker.network.{name}": v for name, v in opts.items()
        }
        lan = Lan(machine, "br0", "10.1.0.0/24", "fd00:1::/64", options=named)
        assert lan.network.bridge is not None and lan.subnet6 is not None
        lan.network.bridge.direct = direct
        self.lan = lan.build()
        self.subnet = lan.subnet if family == "ip" else lan.subnet6
        self.address = str(self.subnet[2])
        self.web = lan.sandbox("web", 2, *(port(8080, PUBLISHED, ip) for ip in ("0.0.0.0", "::")))
        outside.run("ip", "route", "add", str(self.subnet), "via", HOST_ADDRESS[family])
        outside.keep_this()

    def open_from(self, client: Namespace) -> list[str]:
        """What of the container's own address is open to a client."""
        found = []
        for name, number in (("published", PUBLISHED), ("unpublished", UNPUBLISHED)):
            with self.web.listen(number, "0.0.0.0" if self.family == "ip" else "::"):
                if client.reaches(self.address, number, 0.3):
                    found.append(name)
        with contextlib.suppress(OSError):
            ping(client, self.address, 0.3)
            found.append("ping")
        return found

    def seen_outside(self) -> str:
        """Under which address a connection of the container arrives."""
        target = "192.0.2.2" if self.family == "ip" else "2001:db8::2"
        return tcp(self.web, target, 7000, self.outside)


@families
def test_a_trusted_interface_reaches_what_is_published_and_nothing_else(
    machine: Machine, outside: Machine, make_machine: Callable[[str], Machine], family: Family
) -> None:
    stranger = make_machine("gamma")
    cable(machine, stranger, "198.51.100", "up1", "2001:db8:1::")
    site = Site(machine, outside, family, trusted_host_interfaces="wg7:up0")
    assert site.open_from(outside) == ["published"]
    via = "198.51.100.1" if family == "ip" else "2001:db8:1::1"
    stranger.run("ip", "route", "add", str(site.subnet), "via", via)
    stranger.keep_this()
    assert site.open_from(stranger) == []


@families
def test_direct_routing_opens_what_is_published(machine: Machine, outside: Machine, family: Family) -> None:
    site = Site(machine, outside, family, direct=True)
    assert site.open_from(outside) == ["published"]
    assert site.open_from(Lan(machine, "br1", "10.2.0.0/24", "fd00:2::/64").build().sandbox("other", 2)) == [
        "published"
    ]


@families
def test_a_fixed_source_address(machine: Machine, outside: Machine, family: Family) -> None:
    own = "192.0.2.77" if family == "ip" else "2001:db8::77"
    machine.run("ip", "address", "add", f"{own}/{24 if family == 'ip' else 64}", "dev", "up0", "nodad")
    machine.keep_this()
    assert Site(machine, outside, family, **{f"host_ipv{4 if family == 'ip' else 6}": own}).seen_outside() == own


@families
def test_without_masquerading_answers_come_and_nobody_else(machine: Machine, outside: Machine, family: Family) -> None:
    site = Site(machine, outside, family, enable_ip_masquerade="false")
    assert site.seen_outside() == site.address
    assert site.open_from(outside) == []


@families
def test_without_icc_neighbours_are_apart_and_the_way_out_is_found(
    machine: Machine, outside: Machine, family: Family
) -> None:
    """Neighbours are asked for on the same isolated ports: ARP and neighbour discovery must get through to the host."""
    site = Site(machine, outside, family, enable_icc="false")
    assert site.open_from(site.lan.sandbox("other", 3)) == []
    assert site.seen_outside() == HOST_ADDRESS[family]


@families
@pytest.mark.parametrize("mode", ["nat", "routed"])
def test_that_a_packet_was_too_big_is_told_to_the_container(
    machine: Machine, outside: Machine, make_machine: Callable[[str], Machine], family: Family, mode: str
) -> None:
    """Path MTU discovery: a router on the way has a narrow link, and says so in an ICMP error."""
    far = make_machine("gamma")
    cable(outside, far, "198.51.100", "up1", "2001:db8:1::")
    outside.sysctl("net.ipv4.ip_forward", "1")
    outside.sysctl("net.ipv6.conf.all.forwarding", "1")
    outside.run("ip", "link", "set", "up1", "mtu", "1300")
    routes = (
        ("198.51.100.0/24", "192.0.2.2", "198.51.100.1", "198.51.100.2")
        if family == "ip"
        else ("2001:db8:1::/64", "2001:db8::2", "2001:db8:1::1", "2001:db8:1::2")
    )
    network, hop, back, target = routes
    machine.run("ip", "route", "add", network, "via", hop)
    far.run("ip", "-6" if family == "ip6" else "-4", "route", "add", "default", "via", back)
    for each in (machine, outside, far):
        each.keep_this()
    site = Site(machine, outside, family, **{f"gateway_mode_ipv{4 if family == 'ip' else 6}": mode})
    sent = b"x" * 100_000
    with far.listen(7000, "0.0.0.0" if family == "ip" else "::") as server, site.web.connect(target, 7000) as here:
        there, _ = server.accept()
        there.settimeout(patient(5))
        here.sendall(sent)
        got = 0
        while got < len(sent):
            got += len(there.recv(1 << 16))
        there.close()
