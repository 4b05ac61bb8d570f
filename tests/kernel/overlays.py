"""Overlay networks for tests of the kernel layer: machines on one switch, and a network that spans them.

Who is where is told to every machine here, as the cluster tells it to hosts; what that means to the kernel is rendered by the
real driver.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from netengine.drivers import EndpointContext, OverlayDriver
from netengine.drivers.overlay import mac_for
from netengine.drivers.underlay import Peer, Underlay
from netengine.drivers.wireguard import Key, TunnelPeer, render_wireguard, tunnel_of
from netengine.kernel import wgkeys
from netengine.kernel.resources import Resource, Table
from netengine.model import Endpoint, Network, Subnet
from tests.hosts import REPO, Namespace, wait_until
from tests.kernel.machine import Machine, box

MakeMachine = Callable[[str], Machine]

SWITCH = "sw0"
PEERS = REPO / ".cache/peers/usr/bin"
"""Where `scripts/install --test` unpacks wireguard-go and wg; this machine's own come first."""

TABLES: frozenset[Resource] = frozenset({Table("ip"), Table("ip6")})


def site(make_machine: MakeMachine, *names: str, mtu: int = 1500) -> tuple[list[Machine], Machine]:
    """Machines on one wire, up0: 192.0.2.N and 2001:db8::N; and the switch, on whose link `SWITCH` everything is heard."""
    machines, switch = [make_machine(name) for name in names], make_machine("switch")
    switch.run(
        "ip", "link", "add", SWITCH, "mtu", str(mtu), "type", "bridge", "forward_delay", "0", "mcast_snooping", "0"
    )
    switch.run(
        "ip", "link", "set", SWITCH, "promisc", "on", "up"
    )  # else what is between ports is not heard on the bridge
    for number, machine in enumerate(machines, 1):
        port = f"p{number}"
        argv = ("mtu", str(mtu), "netns", str(machine.tid))
        switch.run("ip", "link", "add", port, "mtu", str(mtu), "type", "veth", "peer", "name", "up0", *argv)
        switch.run("ip", "link", "set", port, "master", SWITCH, "up")
        machine.run("sysctl", "-qw", "net.ipv6.conf.up0.accept_dad=0", "net.ipv6.conf.up0.disable_ipv6=0")
        machine.run("ip", "address", "add", f"192.0.2.{number}/24", "dev", "up0")
        machine.run("ip", "address", "add", f"2001:db8::{number}/64", "dev", "up0", "nodad")
        machine.run("ip", "link", "set", "up0", "up")
    for machine in machines:
        wait_until(lambda m=machine: "fe80::" in m.run("ip", "-6", "route", "show", "dev", "up0"), "up0 up")
    for machine in (*machines, switch):
        machine.keep_this()
    return machines, switch


@dataclass
class Overlay:
    """A network on some machines. `underlays` are theirs, in the same order."""

    machines: list[Machine]
    underlays: list[Underlay]
    subnets: tuple[str, ...] = ("10.0.9.0/24",)
    vni: int = 4096
    name: str = "over"
    options: dict[str, str] = field(default_factory=dict)
    driver = OverlayDriver()

    def __post_init__(self) -> None:
        self.network = Network(
            id=self.name.encode().hex().ljust(64, "0"),
            name=self.name,
            driver="overlay",
            created="",
            scope="swarm",
            options=self.options,
            enable_ipv6=any(":" in s for s in self.subnets),
        )
        self.driver.settle(self.network, [], 1500)
        assert self.network.overlay is not None
        self.settings = self.network.overlay
        self.settings.vni = self.vni
        self.network.subnets = [Subnet(subnet=s, gateway=str(ip_network(s)[1])) for s in self.subnets]
        self._present: dict[int, list[Peer]] = {}

    def address(self, number: int, version: int = 4, subnet: int = 0) -> str:
        """The `number`-th address of the `subnet`-th of a family's subnets."""
        of_family = [n for n in map(ip_network, self.subnets) if n.version == version]
        return str(of_family[subnet][number])

    def peer(self, host: int, number: int, subnet: int = 0) -> Peer:
        versions = sorted({ip_network(s).version for s in self.subnets})
        addresses = [self.address(number, v, subnet if v == 4 else 0) for v in versions]
        return Peer(mac_for(addresses[0]), tuple(addresses), self.vtep(host))

    def vtep(self, host: int) -> str:
        underlay = self.underlays[host]
        return underlay.tunnel.address if self.settings.encrypted and underlay.tunnel else underlay.vtep

    def endpoint(self, host: int, ns: str, number: int, subnet: int = 0) -> frozenset[Resource]:
        """The resources of an endpoint with the `number`-th address."""
        four = [s for s in self.subnets if ":" not in s][subnet]
        six = next((s for s in self.subnets if ":" in s), "")
        address = self.address(number, 4, subnet)
        made = Endpoint(
            id="e" * 64,
            network_id=self.network.id,
            container_id=ns,
            sandbox_id=ns,
            address=f"{address}/{ip_network(four).prefixlen}",
            address6=f"{self.address(number, 6)}/{ip_network(six).prefixlen}" if six else "",
            mac=mac_for(address),
            link="eth0",
            host_link=f"v{ns}{self.name}"[:15],
        )
        context = EndpointContext(is_gateway=True, is_gateway6=True, underlay=self.underlays[host])
        return self.driver.render_endpoint(self.network, made, context)

    def join(self, host: int, ns: str, number: int, subnet: int = 0) -> Namespace:
        """A sandbox on that machine, built; all machines of the network are told."""
        machine = self.machines[host]
        self._present.setdefault(host, []).append(self.peer(host, number, subnet))
        machine.build(TABLES | box(ns) | self.endpoint(host, ns, number, subnet) | self.resources(host))
        for other in self._present.keys() - {host}:
            self.machines[other].build(self.resources(other))
        return machine.namespace(ns)

    def resources(self, host: int) -> frozenset[Resource]:
        """What is on a machine that has endpoints, but for these: the network, and everybody else's endpoints."""
        underlay = self.underlays[host]
        out = set(self.driver.render_network(self.network, underlay))
        for other, peers in self._present.items():
            if other != host:
                for peer in peers:
                    out |= self.driver.render_peer(self.network, peer, underlay)
        return frozenset(out)


CLUSTER = "c1u57e2c1u57e2c1u57e2c1u5"


@dataclass
class Tunnels:
    """WireGuard between machines, all of them peers. `keys` are theirs, in files below `directory`."""

    machines: list[Machine]
    underlays: list[Underlay]
    directory: Path
    keys: list[Key] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.keys = [self.new_key(host) for host in range(len(self.machines))]

    def new_key(self, host: int, name: str = "wireguard.key") -> Key:
        path = self.directory / str(host) / name
        return Key(wgkeys.make(path), str(path))

    def resources(self, host: int) -> frozenset[Resource]:
        tunnel = self.underlays[host].tunnel
        assert tunnel is not None
        peers = [
            TunnelPeer(f"node{other}", key.public, self.underlays[other].vtep)
            for other, key in enumerate(self.keys)
            if other != host
        ]
        return render_wireguard(CLUSTER, tunnel, self.keys[host], peers)

    def build(self) -> None:
        for host, machine in enumerate(self.machines):
            machine.build(self.resources(host))


def tunnelled(count: int, base: str = "192.0.2.", mtu: int = 1500) -> list[Underlay]:
    return [
        replace(u, tunnel=tunnel_of(CLUSTER, f"node{host}", u.vtep, u.mtu))
        for host, u in enumerate(underlays(count, base, mtu))
    ]


def underlays(count: int, base: str = "192.0.2.", mtu: int = 1500, **more: Any) -> list[Underlay]:
    return [Underlay(f"{base}{number}", mtu, **more) for number in range(1, count + 1)]
