"""What a bridge network, its endpoints and their published ports are in the rules: elements of the sets and maps of
kernel/ruleset.py, in the family of each subnet and address. Pure.

What each gateway mode lets through is decided here, and shown in docs/gateway-modes.md by a test that sends the packets.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Literal, cast

from netengine.drivers.base import EndpointContext
from netengine.drivers.bridge_options import NAT, ROUTED, UNPROTECTED, mode
from netengine.kernel.resources import Element, Family, HostPort, Protocol, Relay, Resource
from netengine.model import BridgeSettings, Endpoint, Network, PublishedPort

WILDCARDS = ("0.0.0.0", "::")


def family_of(address: str) -> Family:
    """The family of an address or of a prefix."""
    return "ip6" if ":" in address else "ip"


def network_elements(network: Network, settings: BridgeSettings) -> set[Resource]:
    """What the rules know of a network as long as it is there."""
    out: set[Resource] = set()
    subnets: dict[Family, list[str]] = {}
    for subnet in network.subnets:
        prefix = str(ip_network(subnet.subnet))
        subnets.setdefault(family_of(prefix), []).append(prefix)
    for family, prefixes in subnets.items():
        out |= _of_family(family, prefixes, network.internal, settings)
    return out


def _of_family(family: Family, prefixes: list[str], internal: bool, settings: BridgeSettings) -> set[Resource]:
    link, way = settings.link, mode(settings, family)
    out: set[Resource] = {Element(family, "bridges", (link,))}
    out |= {Element(family, "hairpins", (link, prefix)) for prefix in prefixes}
    if settings.icc:
        out.add(Element(family, "pairs", (link, link), ("accept",)))
    if internal:
        out.add(Element(family, "internal", (link,)))
    elif way == ROUTED:
        out.add(Element(family, "routed", (link,)))
    else:
        if way == UNPROTECTED:
            out.add(Element(family, "unprotected", (link,)))
        if family in settings.sources:
            out.add(Element(family, "sources", (link,), (settings.sources[family],)))
        elif settings.masquerade:
            out.add(Element(family, "masquerading", (link,)))
    if internal or (way == NAT and settings.masquerade and not settings.direct):
        # Where containers appear outside under their own address, answers come to it from outside, and this set is looked at
        # before connection tracking; what they are not an answer to is dropped in into-a-network.
        out |= {Element(family, "subnets", (prefix,)) for prefix in prefixes}
    if not internal and way == NAT:
        out |= {Element(family, "trusted", (name, prefix)) for name in settings.trusted for prefix in prefixes}
    return out


def guard_elements(endpoint: Endpoint) -> set[Resource]:
    """What a container on a network with anti_spoof may say of itself."""
    port, mac = endpoint.host_link, endpoint.mac
    addresses = {
        ip_address(a.partition("/")[0]) for a in (endpoint.address, endpoint.address6, *endpoint.link_local) if a
    }
    out: set[Resource] = {Element("bridge", "guarded", (port,)), Element("bridge", "stations", (port, mac))}
    out |= {Element("bridge", "owners", (port, mac, str(a))) for a in addresses if a.version == 4}
    if own := {a for a in addresses if a.version == 6}:
        for address in (*own, _link_local(mac)):
            out.add(Element("bridge", "owners6", (port, mac, str(address))))
            out.add(Element("bridge", "targets", (port, str(address))))
    return out


def _link_local(mac: str) -> IPv6Address:
    """The address that the kernel gives a link by itself, RFC 4291, appendix A."""
    octets = bytearray.fromhex(mac.replace(":", ""))
    octets[0] ^= 2
    return IPv6Address(b"\xfe\x80" + bytes(6) + octets[:3] + b"\xff\xfe" + octets[3:])


def port_resources(settings: BridgeSettings, endpoint: Endpoint, context: EndpointContext) -> set[Resource]:
    """What the container's published ports are on this endpoint.

    Ports of the host lead to the endpoint that is the way out of its family; a routed endpoint is reached by its own address
    whichever network the way out is.
    """
    out: set[Resource] = set()
    own: tuple[tuple[Family, str, bool], ...] = (
        ("ip", endpoint.ip, context.is_gateway),
        ("ip6", endpoint.ip6, context.is_gateway6),
    )
    for family, address, is_gateway in own:
        if not address:
            continue
        if mode(settings, family) == ROUTED:
            out |= _opened(family, address, context.ports)
        elif is_gateway:
            ports = [p for p in context.ports if p.host_port and family_of(p.host_ip) == family]
            for port in ports:
                out |= _translated(family, address, port)
            if family == "ip6":
                out |= _relayed(address, ports)
            if settings.direct:
                out |= _opened(family, address, ports)
    if endpoint.ip and context.relays_ipv6 and mode(settings, "ip") != ROUTED:
        ports = [p for p in context.ports if p.host_port and family_of(p.host_ip) == "ip6"]
        out |= {HostPort(p.host_ip, cast(Protocol, p.protocol), p.host_port) for p in ports}
        out |= _relayed(endpoint.ip, ports)
    return out


def _relayed(target: str, ports: Iterable[PublishedPort]) -> set[Resource]:
    """What comes to a port of the host on IPv6 and is not translated. SCTP is left to the rules alone."""
    return {
        Relay(p.host_ip, cast(Literal["tcp", "udp"], p.protocol), p.host_port, target, p.container_port)
        for p in ports
        if p.protocol != "sctp"
    }


def _opened(family: Family, address: str, ports: Iterable[PublishedPort]) -> set[Resource]:
    return {Element(family, "open", (address, p.protocol, str(p.container_port))) for p in ports}


@lru_cache(maxsize=1 << 14)
def _translated(family: Family, address: str, port: PublishedPort) -> frozenset[Resource]:
    """A port of the host that the rules translate, all in one family. Kept, as each operation on a container renders all of its
    ports twice and compares."""
    protocol, number = cast(Protocol, port.protocol), str(port.host_port)  # checked when the request was decoded
    target = (address, str(port.container_port))
    if port.host_ip in WILDCARDS:
        element = Element(family, "ports", (protocol, number), target)
    else:
        element = Element(family, "address-ports", (port.host_ip, protocol, number), target)
    return frozenset(
        {
            HostPort(port.host_ip, protocol, port.host_port),
            element,
            Element(family, "published", (address, protocol, str(port.container_port))),
        }
    )
