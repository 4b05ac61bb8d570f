"""What the macvlan and ipvlan drivers have in common: a parent, the host's link on whose wire their endpoints are.

Pure: whether the parent exists, and what it is, is asked by the engine (engine/parents.py).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from netengine.drivers.addresses import FAMILY_OPTIONS, MTU_SHORT, ipv6_sysctls, render_addresses
from netengine.drivers.base import EndpointContext
from netengine.drivers.endpoint_options import NETWORK_OPTIONS
from netengine.errors import Forbidden, Invalid
from netengine.kernel.resources import (
    HOST,
    Address,
    Ipvlan,
    LinkUp,
    Macvlan,
    Namespace,
    Resource,
    Route,
    Sysctl,
    Veth,
    Vlan,
)
from netengine.model import Endpoint, Network, ParentSettings

PARENT = "parent"
VID_RANGE = (1, 4094)  # IEEE 802.1Q: 0 is a priority tag, 4095 reserved
DHCP = "dhcp"
"""The IPAM driver of networks whose addresses a DHCP server of the wire grants."""
HOST_ACCESS = "host_access"
HOST_AUX, HOST_AUX6 = "host", "host6"
"""The auxiliary addresses that are the host's own on a network with host access, by family."""
FAR_END = "far"
"""The other end of a wire that leads nowhere."""

_LINK_NAME = re.compile(r"[^\s/:\x00-\x1f\x7f]{1,15}")  # dev_valid_name, and what iproute2 can say


def options_of(network: Network, known: Iterable[str]) -> dict[str, str]:
    """The network's options by their full names. Raises Invalid for one that the driver does not know."""
    known = (*known, *FAMILY_OPTIONS, *NETWORK_OPTIONS)
    out = {MTU_SHORT.get(key, key): value for key, value in network.options.items()}
    for key in out:
        if key not in known:
            raise Invalid(f"unknown option {key!r} of driver {network.driver}; known are {', '.join(known)}")
    return out


def choice(option: str, value: str, allowed: tuple[str, ...]) -> str:
    """The value, or the first of those allowed when there is none."""
    if not value:
        return allowed[0]
    if value not in allowed:
        raise Invalid(f"invalid value {value!r} for {option}: it must be one of {', '.join(allowed)}")
    return value


def parent_of(network: Network, options: dict[str, str]) -> tuple[str, bool]:
    """The parent's name, and whether it is a wire of our own because none was given."""
    link = options.get(PARENT, "")
    if not link:
        return f"dm-{network.id[:12]}", True
    if not _LINK_NAME.fullmatch(link) or link in (".", ".."):
        raise Invalid(
            f"invalid value {link!r} for {PARENT}: an interface name has 1 to 15 characters, no space, '/' or ':'"
        )
    if link == "lo":
        raise Invalid(
            f"invalid value 'lo' for {PARENT}: the loopback interface is not a valid {network.driver} parent: it has no wire; "
            "name the interface that leads to the network, or leave the parent out for a network of containers alone"
        )
    return link, False


def host_link_of(network: Network, options: dict[str, str], refusal: str) -> str:
    """The name of the host's own link on the network, "" when it is to have none. `refusal` says why it cannot ("": it can)."""
    value = options.get(HOST_ACCESS, "")
    if value not in ("", "true", "false"):
        raise Invalid(f"invalid value {value!r} for {HOST_ACCESS}: it must be true or false")
    if value != "true":
        return ""
    if refusal:
        raise Invalid(f"{HOST_ACCESS}=true cannot be: {refusal}")
    return f"mh-{network.id[:12]}"


def host_aux(subnet: str) -> str:
    """The name of the host's own address in a subnet."""
    return HOST_AUX6 if ":" in subnet else HOST_AUX


def check_clash(network: Network, link: str, others: Iterable[Network]) -> list[Network]:
    """The other networks on the parent. Raises Forbidden when one has the other driver: the kernel hands the frames of a link
    to one of the two."""
    sharing = [other for other in others if other.parent is not None and other.parent.link == link]
    for other in sharing:
        if other.driver != network.driver:
            raise clash(
                network, link, other, f"it is of driver {other.driver}, and the kernel lets one of the two have a link"
            )
    return sharing


def clash(network: Network, link: str, other: Network, why: str) -> Forbidden:
    return Forbidden(
        f"cannot create network {network.name}: network {other.name} ({other.id[:12]}) is already using parent interface "
        f"{link}: {why}"
    )


def settings_of(network: Network) -> ParentSettings:
    if network.parent is None:
        raise TypeError(f"network {network.name} was not settled by the {network.driver} driver")
    return network.parent


def render_parent(network: Network) -> frozenset[Resource]:
    """What is made of a parent, an 802.1Q sub-interface or a wire that leads nowhere, and of the host's own link on it."""
    return _parent(network) | _host_link(network)


def _parent(network: Network) -> frozenset[Resource]:
    settings = settings_of(network)
    quiet = ipv6_sysctls(HOST, settings.link, enabled=False)
    if settings.trunk:
        return frozenset({Vlan(settings.link, settings.trunk, settings.vid), *quiet, LinkUp(HOST, settings.link)})
    if settings.own:
        # A veth pair whose far end is alone in a namespace: every kernel has it (a dummy, which Docker takes, is missing from
        # some), it has carrier, and nothing that is sent into it comes to anybody. A bridge without ports has no carrier.
        far = network.id
        mtu = settings.mtu or 1500
        pair = Veth(name=settings.link, master="", ns=far, peer=FAR_END, peer_mac=mac_of(f"{far}/{FAR_END}"), mtu=mtu)
        return frozenset({Namespace(far), pair, LinkUp(far, FAR_END), *quiet})
    return frozenset()


def _host_link(network: Network) -> frozenset[Resource]:
    """The kernel keeps a link and what is stacked on it apart, so the host gets a link on the wire like a container's."""
    settings = settings_of(network)
    link = settings.host_link
    if not link:
        return frozenset()
    out: set[Resource] = {
        stacked_link(network, HOST, link, mac_of(f"{network.id}/{link}")),
        LinkUp(HOST, link),
        # It answers for the host's other addresses too, but to its containers alone: to anybody else the parent does.
        Sysctl(HOST, f"net/ipv4/conf/{link}/arp_filter", "1"),
        *ipv6_sysctls(HOST, link, enabled=network.enable_ipv6),
    }
    for subnet in network.subnets:
        address = subnet.aux.get(host_aux(subnet.subnet), "")
        if address:
            out.add(Address(HOST, link, f"{address}/{128 if ':' in address else 32}"))
    return frozenset(out)


def stacked_link(network: Network, ns: str, link: str, mac: str) -> Macvlan | Ipvlan:
    """A link on the wire of the parent."""
    settings = settings_of(network)
    if settings.flag:
        return Ipvlan(ns, link, settings.link, settings.mode, settings.flag, settings.mtu)
    return Macvlan(ns, link, settings.link, settings.mode, mac, settings.mtu)


def render_endpoint(
    network: Network, endpoint: Endpoint, context: EndpointContext, *, next_hop: bool = True
) -> frozenset[Resource]:
    """A link in the sandbox, and what the host needs to reach it. Without `next_hop` the link itself is the way out."""
    settings = settings_of(network)
    ns, link = endpoint.sandbox_id, endpoint.link
    mac = "" if settings.mode == "passthru" else endpoint.mac
    out: set[Resource] = {
        stacked_link(network, ns, link, mac),
        LinkUp(ns, link),
        *render_addresses(endpoint, context, next_hop=next_hop),
    }
    if settings.host_link and endpoint.address:
        out.add(Route(HOST, f"{endpoint.ip}/32", settings.host_link))
    if settings.host_link and endpoint.address6:
        out.add(Route(HOST, f"{endpoint.ip6}/128", settings.host_link))
    return frozenset(out)


def mac_of(text: str) -> str:
    """A locally administered unicast MAC that follows from a text: the same each time."""
    octets = bytearray(hashlib.sha256(text.encode()).digest()[:6])
    octets[0] = octets[0] & 0xFC | 0x02
    return octets.hex(":")
