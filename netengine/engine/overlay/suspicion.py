"""Which words of the kernel about overlay networks healing should look into. Judged from the model alone."""

from __future__ import annotations

import socket

from netengine.drivers.overlay import mtu_of
from netengine.engine.overlay import fabric
from netengine.engine.state import State
from netengine.kernel import events
from netengine.model import Network


def is_here(state: State, network: Network) -> bool:
    """Whether an overlay network has links on this host."""
    return state.fabric.is_possible(network) and any(network.id in c.endpoints for c in state.containers.values())


def mtu(state: State, network: Network) -> int:
    underlay = state.fabric.underlay
    return mtu_of(network, underlay) if underlay is not None and state.fabric.is_possible(network) else 0


def link_looks_wrong(state: State, network: Network, seen: events.LinkSeen) -> bool:
    """Of the bridge or the VXLAN link of a network."""
    settings = network.overlay
    if settings is None or not is_here(state, network):
        return False
    wrong = not seen.up or seen.mtu != mtu(state, network)
    return wrong or (seen.mac != settings.mac if seen.name == settings.link else not seen.port)


def entry_looks_wrong(state: State, seen: events.EntryTouched) -> bool:
    """Of a forwarding entry or a neighbour, on whichever link."""
    if not state.fabric.peers:
        return False
    try:
        link = socket.if_indextoname(seen.index)
    except OSError:
        return False  # with its link, which is told by itself
    network = next((n for n in state.networks.values() if n.overlay and n.overlay.vxlan == link), None)
    if network is None or not is_here(state, network):
        return False
    wanted = ""
    for peer in state.fabric.peers.get(network.id, {}).values():
        if seen.subject == peer.mac:
            wanted = peer.vtep
        elif seen.subject in peer.addresses:
            wanted = peer.mac
    return wanted != seen.target


def is_tunnel(state: State, link: str) -> bool:
    """Whether a link is the WireGuard link that this host's encrypted networks need."""
    end = state.fabric.underlay.tunnel if state.fabric.underlay else None
    return end is not None and end.link == link and bool(fabric.common(state.fabric, state.networks, state.containers))


def tunnel_looks_wrong(state: State, seen: events.LinkSeen) -> bool:
    """Of a link of any kind."""
    end = state.fabric.underlay.tunnel if state.fabric.underlay else None
    return end is not None and is_tunnel(state, seen.name) and (not seen.up or seen.mtu != end.mtu)


def is_tunnel_address(state: State, address: str) -> bool:
    """Whether an address is this host's inside WireGuard."""
    end = state.fabric.underlay.tunnel if state.fabric.underlay else None
    return end is not None and end.address == address and is_tunnel(state, end.link)
