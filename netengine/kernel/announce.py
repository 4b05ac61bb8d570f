"""Announcing an interface: a gratuitous ARP for each of its addresses, sent when the way into the network is open.

A link of ours sends one when it comes up (sysctl arp_notify). But a bridge port only forwards once the kernel's link watch has
seen its carrier, which happens a moment later on another thread: on a quiet host every second announcement is lost in the
bridge. So we wait for the port and say it again; setting a link's MAC to what it is already makes the kernel do that.

Source: net/core/link_watch.c, net/bridge/br.c (br_device_event), net/ipv4/devinet.c (inetdev_event).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from netengine.kernel import messages
from netengine.kernel.netlink import NetlinkSocket
from netengine.kernel.resources import LinkUp
from netengine.kernel.seen import Seen

log = logging.getLogger(__name__)

_PATIENCE = 0.1
"""Seconds. From kernel 6.8 on, asking for a link makes the link watch look at it, and no time passes at all."""

_OPEN = ("UP", "UNKNOWN")
"""States in which a link passes frames: a parent that does not tell (a TUN, a dummy) counts as up."""


def announce(links: Iterable[tuple[LinkUp, Seen]], inside: NetlinkSocket, host: NetlinkSocket) -> None:
    """Wait until the way into the network is open for links of a namespace whose other ends, where they have any, are in the
    host's, and announce those that are to be. Never raises OSError: a neighbour that was not told asks by itself, a while
    later."""
    for up, link in links:
        name = up.link
        try:
            outer = link.get_attr("IFLA_LINK")
            if outer:
                _await_port(host, outer)
            if not up.announces:
                continue
            mac = link.get_attr("IFLA_ADDRESS")
            for error in inside.execute([(f"announce {name}", messages.link_set(name, mac=mac))]):
                if error is not None:
                    raise error
        except OSError as e:
            log.debug("not announced: %s", e)


def announce_again(links: Iterable[tuple[str, str]], inside: NetlinkSocket) -> None:
    """Announce links, (name, MAC), whose ways into the network have long been open. Raises nothing for a link that is gone."""
    for error in inside.execute([(f"announce {name}", messages.same_mac(name, mac)) for name, mac in links]):
        if error is not None:
            log.debug("not announced: %s", error)


def _await_port(host: NetlinkSocket, index: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while host.ask("look at a port", messages.link_get(index=index)).get_attr("IFLA_OPERSTATE") not in _OPEN:
        if time.monotonic() > deadline:
            return
        time.sleep(0.001)
