"""What drivers with addresses have alike: the addresses of an endpoint, its default routes, IPv6 on or off a link, the MTU, a
bridge's MAC.

Pure. Which endpoint is the way out is decided for the sandbox as a whole, by the engine.
"""

from __future__ import annotations

import hashlib

from netengine.drivers.base import EndpointContext
from netengine.errors import Invalid
from netengine.kernel.resources import Address, Resource, Route, Sysctl
from netengine.model import Endpoint, Network

ENABLE_IPV4 = "com.docker.network.enable_ipv4"
ENABLE_IPV6 = "com.docker.network.enable_ipv6"
MTU = "com.docker.network.driver.mtu"
MTU_SHORT = {"mtu": MTU}
MTU_RANGE = (68, 65535)  # RFC 791's least datagram, the largest that a netdevice takes (IFLA_MAX_MTU)
IPV6_MTU = 1280  # RFC 8200, section 5; the kernel takes IPv6 off a link with less
FAMILY_OPTIONS = (ENABLE_IPV4, ENABLE_IPV6)
"""Options of `network create` that every driver with addresses knows: what --ipv4 and --ipv6 say. The engine reads them."""


def parse_mtu(value: str, default: int = 0) -> int:
    """Bytes, as the option says them; `default` where it is not given. Raises Invalid."""
    if not value:
        return default
    low, high = MTU_RANGE
    if not value.isascii() or not value.isdigit() or not low <= int(value) <= high:
        raise Invalid(f"invalid value {value!r} for {MTU}: it must be a number of bytes from {low} to {high}")
    return int(value)


def bridge_mac(network_id: str) -> str:
    """A locally administered unicast MAC that a network keeps for life, so that a bridge made anew has the old one."""
    octets = bytearray(hashlib.sha256(network_id.encode()).digest()[:6])
    octets[0] = octets[0] & 0xFC | 0x02
    return octets.hex(":")


def check_mtu(network: Network, mtu: int, option: str) -> None:
    """Raise Invalid for an MTU that IPv6 cannot have, on a network that has it."""
    if network.enable_ipv6 and mtu < IPV6_MTU:
        raise Invalid(
            f"an MTU of {mtu} is too small for IPv6, which needs {IPV6_MTU} bytes: give -o {option}={IPV6_MTU} or more"
        )


def checked_mtu(network: Network, options: dict[str, str]) -> int:
    """The MTU that the options give, 0 where they give none. Raises Invalid, also when the network's IPv6 cannot have it."""
    mtu = parse_mtu(options.get(MTU, ""))
    if mtu:
        check_mtu(network, mtu, MTU)
    return mtu


def render_addresses(endpoint: Endpoint, context: EndpointContext, *, next_hop: bool = True) -> set[Resource]:
    """The addresses of an endpoint's inner link, and the default routes that go through it; without a `next_hop` the link
    itself is the way.

    A link of a sandbox starts without IPv6 (`kernel.kinds`); here it gets it, but for what would configure it from the
    network: its addresses and routes are netengine's to say.
    """
    ns, link = endpoint.sandbox_id, endpoint.link
    out: set[Resource] = set()
    if endpoint.address:
        out.add(Address(ns, link, endpoint.address))
        if context.is_gateway and (endpoint.gateway or not next_hop):
            out.add(Route(ns, "default", link, endpoint.gateway if next_hop else ""))
    if endpoint.address6:
        out |= {Address(ns, link, endpoint.address6), *ipv6_sysctls(ns, link, enabled=True)}
        if context.is_gateway6 and (endpoint.gateway6 or not next_hop):
            out.add(Route(ns, "::/0", link, endpoint.gateway6 if next_hop else ""))
    return out


def ipv6_sysctls(ns: str, link: str, *, enabled: bool) -> list[Sysctl]:
    """IPv6 on a link or not.

    Never router advertisements: with those, any container could make itself the way out of all others, and of the host
    (CVE-2020-10749). And no duplicate address detection for the bridge's link-local address, without which the kernel cannot
    ask for a neighbour on behalf of a packet that it forwards: published ports would be dead for a second or two. The links
    of a sandbox are born so.
    """
    conf = f"net/ipv6/conf/{link}"
    if not enabled:
        return [Sysctl(ns, f"{conf}/disable_ipv6", "1")]
    out = [Sysctl(ns, f"{conf}/disable_ipv6", "0"), Sysctl(ns, f"{conf}/accept_ra", "0")]
    return out if ns else [*out, Sysctl(ns, f"{conf}/accept_dad", "0")]
