"""The link of this host that has its address in the cluster, as it changes while the daemon runs.

It is the user's: nobody here changes it. When its MTU is another, that of the overlay networks follows; when it loses the
address, that is said, and doctor names it until it is back. Its name matters to nobody.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace

import msgspec

from netengine import hostcheck
from netengine.drivers.addresses import IPV6_MTU, MTU_RANGE
from netengine.drivers.overlay import mtu_of, needed_for_ipv6
from netengine.drivers.underlay import Underlay, inner_mtu
from netengine.drivers.wireguard import tunnel_mtu
from netengine.engine import reconcile
from netengine.engine.core import Core
from netengine.engine.state import State
from netengine.engine.surroundings import FALLBACK_MTU
from netengine.kernel import events, theirs
from netengine.model import Network

log = logging.getLogger(__name__)

SETTING = "overlay.underlay"


async def find(core: Core, vtep: str, port: int) -> Underlay:
    """What the overlay networks lie on, and which link that is, at the beginning."""
    link = await core.on_kernel(theirs.link_with, core.kernel, vtep)
    core.state.fabric.uplink = link.index if link else 0
    if link is None:
        log.error("%s", _lost(vtep))
    return Underlay(vtep, link.mtu if link else FALLBACK_MTU, port)


def remember(core: Core) -> None:
    """What is, for the next daemon."""
    with core.store.transaction() as t:
        t.set(SETTING, msgspec.json.encode(core.state.fabric.underlay).decode())


def suspect(state: State, notices: Iterable[events.Notice]) -> bool:
    """Whether what was heard may concern the link. From the model alone."""
    underlay, uplink = state.fabric.underlay, state.fabric.uplink
    if underlay is None:
        return False
    for notice in notices:
        match notice:
            case events.AddressGone(address=address) | events.AddressSeen(address=address):
                if address == underlay.vtep:
                    return True
            case events.LinkSeen(index=index, mtu=mtu):
                if index == uplink and mtu != underlay.mtu:
                    return True
            case events.Overrun():
                return True
    return False


async def look(core: Core) -> None:
    """Look at the link, and let the overlay networks follow it. Under the writer lock."""
    fabric = core.state.fabric
    underlay = fabric.underlay
    if underlay is None:
        return
    link = await core.on_kernel(theirs.link_with, core.kernel, underlay.vtep)
    if link is None:
        if fabric.uplink:
            log.error("%s", _lost(underlay.vtep))
        fabric.uplink = 0
        return
    if not fabric.uplink:
        log.warning("this host has its address in the cluster, %s, again: on link %s", underlay.vtep, link.name)
    fabric.uplink = link.index
    if link.mtu == underlay.mtu:
        return
    tunnel = underlay.tunnel
    if tunnel is not None:
        tunnel = replace(tunnel, mtu=tunnel_mtu(underlay.vtep, link.mtu))
    after = replace(underlay, mtu=link.mtu, tunnel=tunnel)
    if _least(after) < MTU_RANGE[0]:
        log.error(
            "link %s has MTU %d now, too little for overlay networks: they stay as they were", link.name, link.mtu
        )
        return
    log.warning("link %s has MTU %d in place of %d: overlay networks follow", link.name, link.mtu, underlay.mtu)
    before = _without_ipv6(core.state)
    fabric.underlay = after
    remember(core)
    tell(core.state, before)
    for problem in await reconcile.mend(core, await reconcile.difference(core, names=False, own=False)):
        log.error("%s", problem)


def _without_ipv6(state: State) -> dict[str, Network]:
    """The networks with containers here whose IPv6 has no room on this host."""
    used = {n for c in state.containers.values() for n in c.endpoints}
    return {n.id: n for n in state.networks.values() if n.id in used and n.overlay and state.fabric.lacks_ipv6(n)}


def tell(state: State, before: Mapping[str, Network]) -> None:
    """Say which networks have lost their IPv6 on this host, and which have it again; `before` had lost it already."""
    underlay, now = state.fabric.underlay, _without_ipv6(state)
    for network in now.values() if underlay else ():
        if network.id not in before and underlay is not None:
            log.error("%s; %s: %s", too_small(network, underlay), _goes_on(network), remedy(network, underlay))
    for network in before.values():
        if network.id not in now:
            log.warning("network %s has IPv6 on this host again", network.name)


def too_small(network: Network, underlay: Underlay) -> str:
    """Why a network that `lacks_ipv6` does."""
    return (
        f"network {network.name} has IPv6, which needs {IPV6_MTU} bytes, and the link that has {underlay.vtep} leaves "
        f"{mtu_of(network, underlay)} of its {underlay.mtu}"
    )


def remedy(network: Network, underlay: Underlay) -> str:
    return f"give that link an MTU of {needed_for_ipv6(network, underlay)} or more"


def _goes_on(network: Network) -> str:
    if not network.enable_ipv4:
        return "its containers on this host are cut off"
    return "its containers on this host go on by IPv4 alone"


def _least(underlay: Underlay) -> int:
    """The MTU inside the networks that have the least."""
    tunnel = underlay.tunnel
    return inner_mtu(tunnel.mtu, tunnel.address) if tunnel is not None else inner_mtu(underlay.mtu, underlay.vtep)


async def findings(core: Core) -> list[hostcheck.Finding]:
    """What `doctor` says of it."""
    underlay = core.state.fabric.underlay
    if underlay is None:
        return []
    if await core.on_kernel(theirs.link_with, core.kernel, underlay.vtep) is None:
        give = f"give it back to a link of this host: ip address add {underlay.vtep}/LENGTH dev LINK"
        return [hostcheck.Finding("fatal", _lost(underlay.vtep), give)]
    out = [
        hostcheck.Finding("warn", f"{too_small(n, underlay)}; {_goes_on(n)}", remedy(n, underlay))
        for n in _without_ipv6(core.state).values()
    ]
    for network in core.state.networks.values():
        settings = network.overlay
        most = _least(underlay) if settings and settings.encrypted else inner_mtu(underlay.mtu, underlay.vtep)
        if settings is not None and settings.mtu > most:
            what = f"network {network.name} has MTU {settings.mtu}, and the way to the other hosts takes {most}"
            anew = f"where large packets get lost, make it anew with -o com.docker.network.driver.mtu={most}"
            out.append(hostcheck.Finding("note", what, anew))
    return out


def _lost(vtep: str) -> str:
    return (
        f"no link of this host has {vtep}, its address in the cluster: packets of overlay networks reach no other host"
    )
