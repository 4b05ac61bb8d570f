"""What the model knows of the other hosts, and what exists in this host's kernel because of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from netengine.cluster.records import EndpointRecord
from netengine.drivers import DRIVERS, OverlayDriver
from netengine.drivers.overlay import has_ipv6
from netengine.drivers.underlay import Peer, Underlay
from netengine.drivers.wireguard import Key, TunnelPeer, render_wireguard
from netengine.kernel.resources import Resource, Table
from netengine.model import Container, Network

_DRIVER = OverlayDriver()

Place = tuple[str, str]
"""A node and an address: where an endpoint is."""


@dataclass(frozen=True, slots=True)
class Claim:
    """An endpoint that the cluster knows, and this host's model does not yet."""

    network_id: str
    record: EndpointRecord


@dataclass
class Fabric:
    """The part of the state that is about other hosts. Changed under the writer lock only."""

    underlay: Underlay | None = None
    """None while this host belongs to no cluster."""
    uplink: int = 0
    """The index of the link that has the underlay's address, 0 while none has it."""
    peers: dict[str, dict[Place, Peer]] = field(default_factory=dict)
    """Endpoints on hosts that are up, by network."""
    named: dict[str, dict[str, EndpointRecord]] = field(default_factory=dict)
    """The records of these, by network and endpoint: what the name server knows of them."""
    cluster: str = ""
    """Its id, and the host's own key, once it has an encrypted network."""
    key: Key | None = None
    hosts: dict[str, TunnelPeer] = field(default_factory=dict)
    """The other hosts that have a key, by node."""
    leaving: set[tuple[str, str]] = field(default_factory=set)
    """(network, address) of endpoints that are gone here and not yet withdrawn from the store."""

    def is_possible(self, network: Network) -> bool:
        """Whether this host can have endpoints on the network now."""
        settings = network.overlay
        return (
            self.underlay is not None and settings is not None and bool(self.underlay.tunnel or not settings.encrypted)
        )

    def lacks_ipv6(self, network: Network) -> bool:
        """Whether what lies below leaves an overlay network with IPv6 too little for it on this host: it goes on by IPv4."""
        if self.underlay is None or not network.enable_ipv6 or not self.is_possible(network):
            return False
        return not has_ipv6(network, self.underlay)

    def tunnel(self) -> frozenset[Resource]:
        """The host's WireGuard link and all other hosts as its peers."""
        tunnel = self.underlay.tunnel if self.underlay else None
        if tunnel is None or self.key is None:
            return frozenset()
        return render_wireguard(self.cluster, tunnel, self.key, self.hosts.values())


def render(fabric: Fabric, containers: Mapping[str, Container], network: Network) -> frozenset[Resource]:
    """What exists because of a network: of an overlay network nothing on a host without a container there."""
    if network.overlay is None:
        return DRIVERS[network.driver].render_network(network)
    return span(fabric, network) if any(network.id in c.endpoints for c in containers.values()) else frozenset()


def span(fabric: Fabric, network: Network) -> frozenset[Resource]:
    """An overlay network on a host with containers there, and the way to everybody on the others."""
    if fabric.underlay is None or not fabric.is_possible(network):
        return frozenset()
    out = set(_DRIVER.render_network(network, fabric.underlay))
    return frozenset(out | ways(fabric, network, fabric.peers.get(network.id, {}).values()))


def ways(fabric: Fabric, network: Network, peers: Iterable[Peer]) -> frozenset[Resource]:
    """The way to endpoints on other hosts."""
    underlay = fabric.underlay
    if underlay is None or not fabric.is_possible(network):
        return frozenset()
    return frozenset(r for peer in peers for r in _DRIVER.render_peer(network, peer, underlay))


def common(fabric: Fabric, networks: Mapping[str, Network], containers: Mapping[str, Container]) -> frozenset[Resource]:
    """What all encrypted networks that are on this host have in common."""
    return fabric.tunnel() if any(_is_encrypted(networks, c) for c in containers.values()) else frozenset()


def _is_encrypted(networks: Mapping[str, Network], container: Container) -> bool:
    """Whether a container is on an encrypted network."""
    found = (networks[n].overlay for n in container.endpoints if n in networks)
    return any(settings is not None and settings.encrypted for settings in found)


def _is_on_overlay(networks: Mapping[str, Network], container: Container) -> bool:
    return any(n in networks and networks[n].overlay is not None for n in container.endpoints)


def of_sole_user(
    fabric: Fabric, networks: Mapping[str, Network], containers: Mapping[str, Container], container: Container
) -> frozenset[Resource]:
    """The overlay networks that are on this host because of one container alone: they come and go with it."""
    out: set[Resource] = set()
    for network_id in container.endpoints:
        network = networks[network_id]
        if network.overlay is not None and not any(
            network_id in other.endpoints for other in containers.values() if other.id != container.id
        ):
            out |= span(fabric, network)
    if out and any(_is_on_overlay(networks, other) for other in containers.values() if other.id != container.id):
        out -= {r for r in out if isinstance(r, Table)}  # the rules are there for all overlay networks
    if fabric.key is not None and _is_encrypted(networks, container):
        others = {i: c for i, c in containers.items() if i != container.id}
        if not common(fabric, networks, others):
            out |= fabric.tunnel()
    return frozenset(out)
