"""The bridge driver: docker0-style networks.

A network is a Linux bridge with the gateway's address and an entry in each nftables set that concerns it; an endpoint is a veth
pair from the bridge into the sandbox, an address, perhaps the default route, and an nftables element for each published port.
docs/bridge.md shows all of it on a live kernel.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address

from netengine.drivers import bridge_options
from netengine.drivers.addresses import (
    FAMILY_OPTIONS,
    MTU,
    MTU_SHORT,
    bridge_mac,
    check_mtu,
    ipv6_sysctls,
    parse_mtu,
    render_addresses,
)
from netengine.drivers.base import EndpointContext, boolean
from netengine.drivers.bridge_rules import guard_elements, network_elements, port_resources
from netengine.drivers.endpoint_options import NETWORK_OPTIONS
from netengine.errors import Forbidden, Invalid
from netengine.kernel.resources import (
    HOST,
    Address,
    Bridge,
    LinkUp,
    Resource,
    Sysctl,
    Table,
    Veth,
)
from netengine.model import BridgeSettings, Endpoint, Network

NAME = "com.docker.network.bridge.name"
ICC = "com.docker.network.bridge.enable_icc"
MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
HOST_BINDING = "com.docker.network.bridge.host_binding_ipv4"
DEFAULT_BRIDGE = "com.docker.network.bridge.default_bridge"
_KNOWN = (NAME, ICC, MASQUERADE, HOST_BINDING, DEFAULT_BRIDGE, MTU, *FAMILY_OPTIONS, *bridge_options.OPTIONS)

_LINK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")


class BridgeDriver:
    name = "bridge"
    has_addresses = True
    shares_subnets = False
    publishes_ports = True

    def settle(self, network: Network, others: Iterable[Network], default_mtu: int) -> None:
        options = {MTU_SHORT.get(key, key): value for key, value in network.options.items()}
        for key in options:
            if key not in _KNOWN and key not in NETWORK_OPTIONS:
                raise Invalid(
                    f"unknown option {key!r} of driver bridge; known are {', '.join(_KNOWN + NETWORK_OPTIONS)}"
                )
        link = options.get(NAME, "") or f"br-{network.id[:12]}"
        if not _LINK_NAME.fullmatch(link):
            raise Invalid(
                f"invalid value {link!r} for {NAME}: an interface name has 1 to 15 letters, digits, '-', '_' or '.'"
            )
        for other in others:
            if other.bridge is not None and other.bridge.link == link:
                raise Forbidden(
                    f"cannot create network {network.id} ({link}): conflicts with network {other.id} ({other.name}): "
                    "same bridge name"
                )
        network.bridge = BridgeSettings(
            link=link,
            mac=bridge_mac(network.id),
            mtu=parse_mtu(options.get(MTU, ""), default_mtu),
            icc=boolean(ICC, options.get(ICC), default=True),
            masquerade=boolean(MASQUERADE, options.get(MASQUERADE), default=True),
            host_binding=_address(options.get(HOST_BINDING, "")),
        )
        check_mtu(network, network.bridge.mtu, MTU)
        network.bridge.anti_spoof = boolean(
            bridge_options.ANTI_SPOOF, options.get(bridge_options.ANTI_SPOOF), default=False
        )
        inhibit = boolean(bridge_options.INHIBIT_IPV4, options.get(bridge_options.INHIBIT_IPV4), default=False)
        bridge_options.settle(network.bridge, network, options, inhibit_ipv4=inhibit)

    def has_next_hop(self, network: Network) -> bool:
        return True

    def has_own_mac(self, network: Network) -> bool:
        return True

    def render_network(self, network: Network) -> frozenset[Resource]:
        settings = _settings(network)
        link = settings.link
        out = network_elements(network, settings)
        if not settings.adopted:
            out |= {
                Bridge(link, settings.mac, settings.mtu, f"netengine-br-{network.id[:12]}"),
                *ipv6_sysctls(HOST, link, enabled=network.enable_ipv6),
            }
        for subnet in network.subnets:
            has = settings.has_address if subnet.version == 4 else settings.has_address6
            if not has and bridge_options.gives_address(settings, subnet.family):
                out.add(Address(HOST, link, f"{subnet.gateway}/{subnet.subnet.partition('/')[2]}"))
        if not network.internal and bridge_options.mode(settings, "ip") != bridge_options.ROUTED:
            # Lets the answer to a connection from 127.0.0.1 to a published port find its way back.
            out.add(Sysctl(HOST, f"net/ipv4/conf/{link}/route_localnet", "1"))
        if settings.anti_spoof:
            out.add(Table("bridge"))
        if network.predefined:
            out |= _render_links(settings)
        return frozenset(out)

    def render_endpoint(self, network: Network, endpoint: Endpoint, context: EndpointContext) -> frozenset[Resource]:
        settings = _settings(network)
        out: set[Resource] = {
            Veth(
                name=endpoint.host_link,
                master=settings.link,
                ns=endpoint.sandbox_id,
                peer=endpoint.link,
                peer_mac=endpoint.mac,
                mtu=settings.mtu,
                isolated=not settings.icc,
            ),
            LinkUp(endpoint.sandbox_id, endpoint.link, announces=not endpoint.steady_mac),
            *render_addresses(endpoint, context),
        }
        if settings.anti_spoof:
            out |= guard_elements(endpoint)
        return frozenset(out | port_resources(settings, endpoint, context))


def _render_links(settings: BridgeSettings) -> set[Resource]:
    """The way of linked containers to each other where ports are isolated: over the host, which answers their ARP requests in
    the other's place (proxy ARP for private VLANs, RFC 3069) and forwards what the set `links` lets through."""
    arp, delay = f"net/ipv4/conf/{settings.link}/proxy_arp_pvlan", f"net/ipv4/neigh/{settings.link}/proxy_delay"
    if not settings.icc:
        return {Sysctl(HOST, arp, "1"), Sysctl(HOST, delay, "0")}  # else an answer waits up to 0.8 s
    # It may have been on before; where neighbours answer for themselves, two answers would be one too many.
    return set() if settings.adopted else {Sysctl(HOST, arp, "0")}


def _settings(network: Network) -> BridgeSettings:
    if network.bridge is None:
        raise TypeError(f"network {network.name} was not settled by the bridge driver")
    return network.bridge


def _address(value: str) -> str:
    if not value:
        return ""
    try:
        return str(IPv4Address(value))
    except ValueError:
        raise Invalid(f"invalid value {value!r} for {HOST_BINDING}: it must be an IPv4 address of the host") from None
