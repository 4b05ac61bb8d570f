"""The overlay driver: one network across hosts, by VXLAN.

On each host with a container of the network there are a bridge without address and a VXLAN link as its port; an endpoint is a
veth pair from that bridge into the sandbox, as with the bridge driver. An endpoint on another host is an entry in the VXLAN
link's forwarding table and a permanent neighbour for each of its addresses: nothing is learned and nothing flooded. The way out
of the network is no part of it: that is docker_gwbridge's. docs/overlay.md shows all of it on a live kernel.

Which hosts there are and what is on them is the engine's to know; what depends on the host is in `underlay`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address, ip_network

from netengine.drivers.addresses import (
    FAMILY_OPTIONS,
    IPV6_MTU,
    MTU,
    MTU_SHORT,
    bridge_mac,
    checked_mtu,
    ipv6_sysctls,
    render_addresses,
)
from netengine.drivers.base import EndpointContext, boolean
from netengine.drivers.endpoint_options import NETWORK_OPTIONS
from netengine.drivers.underlay import Peer, Tunnel, Underlay, inner_mtu, outer_mtu
from netengine.drivers.wireguard import underlay_mtu
from netengine.errors import Invalid, Unavailable
from netengine.kernel.resources import (
    HOST,
    Bridge,
    Element,
    Fdb,
    LinkUp,
    Neighbour,
    Resource,
    Route,
    Sysctl,
    Table,
    Veth,
    Vxlan,
)
from netengine.model import Endpoint, Network, OverlaySettings

ENCRYPTED = "encrypted"
VNIS = "com.docker.network.driver.overlay.vxlanid_list"
_KNOWN = (ENCRYPTED, MTU, VNIS, *FAMILY_OPTIONS)

VNI_RANGE = (1, 2**24 - 1)  # 24 bits, RFC 7348; 0 is left out: it says "none yet" in the model


class OverlayDriver:
    name = "overlay"
    has_addresses = True
    shares_subnets = False
    publishes_ports = False

    def settle(self, network: Network, others: Iterable[Network], default_mtu: int) -> None:
        """The VNI is left to the cluster unless an option names it; the MTU to each host, likewise."""
        options = {MTU_SHORT.get(key, key): value for key, value in network.options.items()}
        for key in options:
            if key not in _KNOWN and key not in NETWORK_OPTIONS:
                raise Invalid(
                    f"unknown option {key!r} of driver overlay; known are {', '.join(_KNOWN + NETWORK_OPTIONS)}"
                )
        network.overlay = OverlaySettings(
            link=f"br-{network.id[:12]}",
            vxlan=f"vx-{network.id[:12]}",
            mac=bridge_mac(network.id),
            vni=_vni(options.get(VNIS, "")),
            mtu=checked_mtu(network, options),
            # `--opt encrypted` alone comes as an empty value.
            encrypted=boolean(
                ENCRYPTED, options.get(ENCRYPTED) or ("1" if ENCRYPTED in options else "0"), default=False
            ),
        )

    def has_next_hop(self, network: Network) -> bool:
        return True

    def has_own_mac(self, network: Network) -> bool:
        return True

    def render_network(self, network: Network, underlay: Underlay | None = None) -> frozenset[Resource]:
        """What exists on a host while it has endpoints there. Without `underlay` it has none, and nothing exists."""
        if underlay is None:
            return frozenset()
        settings = settings_of(network)
        local, parent = _way(network, underlay)
        mtu = mtu_of(network, underlay)
        out: set[Resource] = {
            Bridge(settings.link, settings.mac, mtu, f"netengine-br-{network.id[:12]}"),
            # The host has no part in the network, not even a link-local address.
            *ipv6_sysctls(HOST, settings.link, enabled=False),
            Vxlan(settings.vxlan, settings.vni, local, underlay.port, settings.link, mtu, parent),
            # A link without IPv6 has no IPv6 neighbours, and so cannot answer for them. As a port it has no address.
            Sysctl(HOST, f"net/ipv6/conf/{settings.vxlan}/disable_ipv6", "0" if has_ipv6(network, underlay) else "1"),
        }
        out |= {Table("inet"), Element("inet", "sealed", (settings.link,))}
        for family in {s.family for s in network.subnets}:
            # Where br_netfilter is on, what crosses the bridge is seen by the rules: its own may, and no other.
            out |= {
                Element(family, "bridges", (settings.link,)),
                Element(family, "pairs", (settings.link, settings.link), ("accept",)),
                Element(family, "internal", (settings.link,)),
            }
        return frozenset(out)

    def render_endpoint(self, network: Network, endpoint: Endpoint, context: EndpointContext) -> frozenset[Resource]:
        """`context.underlay` must be there: whoever has an endpoint is a host of the network."""
        if context.underlay is None:
            raise TypeError(f"an endpoint on network {network.name} is rendered without the host's underlay")
        settings = settings_of(network)
        ns = endpoint.sandbox_id
        out: set[Resource] = {
            Veth(
                name=endpoint.host_link,
                master=settings.link,
                ns=ns,
                peer=endpoint.link,
                peer_mac=endpoint.mac,
                mtu=mtu_of(network, context.underlay),
            ),
            LinkUp(ns, endpoint.link),
            *render_addresses(endpoint, replace(context, is_gateway=False, is_gateway6=False)),
        }
        # All subnets of a network are on one wire, without a router between them.
        own = {str(ip_network(a, strict=False)) for a in (endpoint.address, endpoint.address6) if a}
        for subnet in network.subnets:
            prefix = str(ip_network(subnet.subnet))
            if prefix not in own and (endpoint.address if subnet.version == 4 else endpoint.address6):
                out.add(Route(ns, prefix, endpoint.link))
        return frozenset(out)

    def render_peer(self, network: Network, peer: Peer, underlay: Underlay) -> frozenset[Resource]:
        """What exists on a host with endpoints of its own while an endpoint of another host does."""
        link = settings_of(network).vxlan
        _, parent = _way(network, underlay)
        addresses = (a for a in peer.addresses if ":" not in a or has_ipv6(network, underlay))
        return frozenset({Fdb(link, peer.mac, peer.vtep, parent), *(Neighbour(link, a, peer.mac) for a in addresses)})


def settings_of(network: Network) -> OverlaySettings:
    if network.overlay is None:
        raise TypeError(f"network {network.name} was not settled by the overlay driver")
    return network.overlay


def mtu_of(network: Network, underlay: Underlay) -> int:
    """The MTU inside the network on a host, in bytes."""
    settings = settings_of(network)
    if settings.mtu:
        return settings.mtu
    if settings.encrypted:
        tunnel = _tunnel(network, underlay)
        return inner_mtu(tunnel.mtu, tunnel.address)
    return inner_mtu(underlay.mtu, underlay.vtep)


def has_ipv6(network: Network, underlay: Underlay) -> bool:
    """Whether the network has IPv6 on a host: the kernel takes it off a link that takes less than IPv6 needs."""
    return network.enable_ipv6 and mtu_of(network, underlay) >= IPV6_MTU


def needed_for_ipv6(network: Network, underlay: Underlay) -> int:
    """The MTU of the underlay that leaves the network what IPv6 needs, in bytes."""
    if not settings_of(network).encrypted:
        return outer_mtu(IPV6_MTU, underlay.vtep)
    return underlay_mtu(underlay.vtep, outer_mtu(IPV6_MTU, _tunnel(network, underlay).address))


def mac_for(address: str) -> str:
    """The MAC of an endpoint by its IPv4 address, as Docker's: 02:42 and the address. Hosts need not agree on it by asking."""
    return (b"\x02\x42" + IPv4Address(address).packed).hex(":")


def _way(network: Network, underlay: Underlay) -> tuple[str, str]:
    """The address that a network's frames leave from, and the link that they must take ("": as the host routes)."""
    if not settings_of(network).encrypted:
        return underlay.vtep, ""
    tunnel = _tunnel(network, underlay)
    return tunnel.address, tunnel.link


def _tunnel(network: Network, underlay: Underlay) -> Tunnel:
    if underlay.tunnel is None:
        raise Unavailable(f"network {network.name} is encrypted, and this host has no WireGuard link")
    return underlay.tunnel


def _vni(value: str) -> int:
    if not value:
        return 0
    low, high = VNI_RANGE
    if "," in value:
        raise Invalid(
            f"invalid value {value!r} for {VNIS}: all subnets of a network share one VXLAN network identifier; give one"
        )
    if not value.isascii() or not value.isdigit() or not low <= int(value) <= high:
        raise Invalid(f"invalid value {value!r} for {VNIS}: it must be a number from {low} to {high}")
    return int(value)
