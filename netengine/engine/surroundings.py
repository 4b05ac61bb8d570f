"""Where networks meet the rest of the host: the MTU of its uplink, routes that appear later, and what the kernel has room for.

Limits are told before anything is made. What comes up by itself afterwards is told in the log, as an event, and by `doctor`.
"""

from __future__ import annotations

import logging
import socket
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Literal

from netengine import hostcheck
from netengine.engine.core import Core
from netengine.engine.state import State
from netengine.errors import Forbidden
from netengine.kernel import surroundings, theirs
from netengine.kernel.events import RouteSeen
from netengine.model import Network

log = logging.getLogger(__name__)

FALLBACK_MTU = 1500
"""Bytes, where the host has no way out."""

BRIDGE_PORTS = 1023
"""BR_MAX_PORTS of net/bridge/br_private.h, less the number 0 that no port has."""

_SMALL = 1000
"""Neighbours that any kernel has room for (gc_thresh3 is 1,024 unless somebody lowers it): below, it is not asked."""

_PER_ENDPOINT: dict[Literal[4, 6], int] = {4: 2, 6: 4}
"""Entries of the neighbour table: the host's for the container, and the container's for its gateway. By IPv6 they know each
other's link-local addresses as well."""


async def default_mtu(core: Core) -> int:
    """The MTU of a network that is given none: the configuration's, else that of the host's uplink."""
    if core.config.mtu:
        return core.config.mtu
    found = await core.on_kernel(surroundings.uplink, core.kernel)
    return found.mtu if found else FALLBACK_MTU


# -- room -------------------------------------------------------------------------------------------------------------


def room_on(state: State, network: Network) -> None:
    """Raise Forbidden when the network's bridge has no port left."""
    if len(state.containers) < BRIDGE_PORTS:
        return  # each has one at most
    if (network.bridge or network.overlay) and len(list(state.attached_to(network.id))) >= BRIDGE_PORTS:
        raise Forbidden(
            f"network {network.name} has {BRIDGE_PORTS} endpoints, and a Linux bridge has no more ports: "
            "use another network, or disconnect a container from this one"
        )


async def room_for_neighbours(core: Core, more: int) -> str:
    """A warning when the kernel's neighbour tables may not hold all endpoints and `more` of them; "" when they will.

    Looks again only when as many may have come as there was room for at the last look, or a tenth more since it warned: to
    count 900 endpoints, and to ask the kernel, which lists the links of the host with its answer, takes longer than to connect.
    """
    warnings = []
    for version in _PER_ENDPOINT:
        left = core.state.spare_neighbours[version] = core.state.spare_neighbours.get(version, 0) - more
        if left < 0:
            warnings.append(await _room(core, version, more))
    return "; ".join(filter(None, warnings))


async def _room(core: Core, version: Literal[4, 6], more: int) -> str:
    endpoints = [e for container in core.state.containers.values() for e in container.endpoints.values()]
    live = sum(1 for e in endpoints if (e.address if version == 4 else e.address6))
    each = _PER_ENDPOINT[version]
    needed, most = each * (live + more), _SMALL
    if needed > most:
        table = await core.on_kernel(surroundings.neighbours, core.kernel, version)
        most = table.most if table is not None else needed
    fits = needed <= most
    core.state.spare_neighbours[version] = (most - needed) // each if fits else live // 10
    if fits:
        return ""
    return (
        f"{live + more} endpoints need up to {needed} entries of the kernel's neighbour table of IPv{version}, which takes "
        f"{most}: packets will be lost when all of them talk; on the host: sysctl -w {_wider(version, needed)}"
    )


def _wider(version: Literal[4, 6], needed: int) -> str:
    most = 1 << (2 * needed - 1).bit_length()
    prefix = f"net.ipv{version}.neigh.default.gc_thresh"
    return f"{prefix}3={most} {prefix}2={most // 2} {prefix}1={most // 8}"


# -- what appears later -----------------------------------------------------------------------------------------------


def route_seen(core: Core, seen: RouteSeen) -> None:
    """Somebody has added a route to the host. When it leads into one of our subnets, say so."""
    prefix = ip_network(seen.destination, strict=False)
    crossed = [(n, s) for n, s in _subnets(core.state) if s.version == prefix.version and s.overlaps(prefix)]
    if not crossed:
        return
    link = ""
    with suppress(OSError):
        link = socket.if_indextoname(seen.index) if seen.index else ""
    if any(n.bridge and n.bridge.link == link for n in core.state.networks.values()):
        return
    for network, subnet in crossed:
        log.warning("%s", _overlap(network, subnet, prefix, link))
        core.events.publish(
            "network", "overlap", network.id, name=network.name, type=network.driver, route=str(prefix), link=link
        )


async def findings(core: Core) -> list[hostcheck.Finding]:
    """What `doctor` says of the networks that exist and the host around them."""
    out = []
    routes = await core.on_kernel(theirs.host_routes, core.kernel)
    for network, subnet in _subnets(core.state):
        for route in routes:
            if route.version == subnet.version and route.overlaps(subnet):
                remedy = f"make network {network.name} anew with another --subnet, or take the route away"
                out.append(hostcheck.Finding("warn", _overlap(network, subnet, route), remedy))
    out += await _too_large(core)
    for version in _PER_ENDPOINT:
        if warning := await _room(core, version, 0):
            what, _, remedy = warning.partition("; ")
            out.append(hostcheck.Finding("warn", what, remedy))
    return out


async def _too_large(core: Core) -> list[hostcheck.Finding]:
    uplink = await core.on_kernel(surroundings.uplink, core.kernel)
    out = []
    for network in core.state.networks.values():
        if uplink and network.bridge and not network.internal and network.bridge.mtu > uplink.mtu:
            what = f"network {network.name} has MTU {network.bridge.mtu}, the host's uplink {uplink.link} {uplink.mtu}"
            remedy = f"where large packets get lost, make it anew with -o com.docker.network.driver.mtu={uplink.mtu}"
            out.append(hostcheck.Finding("note", what, remedy))
    return out


def _subnets(state: State) -> list[tuple[Network, IPv4Network | IPv6Network]]:
    """Subnets that exist nowhere but on a bridge of ours: a bridge that was there before us has its own route."""
    networks = [n for n in state.networks.values() if n.bridge is not None and not n.bridge.adopted]
    return [(n, ip_network(s.subnet)) for n in networks for s in n.subnets]


def _overlap(
    network: Network, subnet: IPv4Network | IPv6Network, route: IPv4Network | IPv6Network, link: str = ""
) -> str:
    by = f" by {link}" if link else ""
    if route.prefixlen > subnet.prefixlen:
        effect = f"packets to {route} go there, and not to containers of the network"
    elif route.prefixlen < subnet.prefixlen:
        effect = f"from this host {subnet} is the network's containers, and not what the route leads to"
    else:
        effect = "which of the two gets the packets is undecided"
    return f"the host's route to {route}{by} overlaps subnet {subnet} of network {network.name}: {effect}"
