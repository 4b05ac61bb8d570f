"""What of the host around us says how networks should be made, and how many: the uplink, the neighbour table. Only read here,
on the kernel thread.

Source: include/uapi/linux/{rtnetlink,neighbour}.h, net/core/neighbour.c.
"""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from typing import Literal

from pyroute2.netlink.rtnl import RTM_GETNEIGHTBL
from pyroute2.netlink.rtnl.ndtmsg import ndtmsg

from netengine.kernel import messages
from netengine.kernel.host import Kernel
from netengine.kernel.netlink import NetlinkError
from netengine.kernel.resources import HOST, MARK_GROUP

_FAR_AWAY = ("1.1.1.1", "2606:4700:4700::1111")
"""Addresses that are reached by the default route wherever there is one. Nothing is sent to them."""

_NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL, errno.ENODEV)


@dataclass(frozen=True, slots=True)
class Uplink:
    """The host's way out: the link, and the bytes that a packet by it may have."""

    link: str
    mtu: int


@dataclass(frozen=True, slots=True)
class NeighbourTable:
    """The kernel's neighbours of one family, of all network namespaces together. Above `most` (gc_thresh3) it takes no more."""

    entries: int
    most: int


def uplink(kernel: Kernel) -> Uplink | None:
    """By which link of its own, and with which MTU, the host reaches the rest of the world, by IPv6 where not by IPv4; None
    where it does not."""
    return next((found for address in _FAR_AWAY if (found := _way_to(kernel, address)) is not None), None)


def _way_to(kernel: Kernel, address: str) -> Uplink | None:
    sock = kernel.socket_in(HOST)
    try:
        route = sock.ask("look for the uplink", messages.route_get(address))
        link = sock.ask("look at the uplink", messages.link_get(index=route.get_attr("RTA_OIF")))
    except NetlinkError as e:
        if e.errno in _NO_ROUTE:
            return None
        raise
    if link.get_attr("IFLA_GROUP") == MARK_GROUP:
        return None
    metrics = route.get_attr("RTA_METRICS")
    of_route = metrics.get_attr("RTAX_MTU") if metrics else None
    return Uplink(link.get_attr("IFLA_IFNAME"), of_route or link.get_attr("IFLA_MTU"))


def neighbours(kernel: Kernel, version: Literal[4, 6]) -> NeighbourTable | None:
    """How full the neighbour table of a family is. Asked by netlink: a network namespace other than the first has no file that
    says it. The kernel lists the table first, and then what each of a thousand links has of it."""
    message = ndtmsg()
    message["header"]["type"] = RTM_GETNEIGHTBL
    message["family"] = socket.AF_INET if version == 4 else socket.AF_INET6
    for table in kernel.socket_in(HOST).dump(message, most=1):
        most, config = table.get_attr("NDTA_THRESH3"), table.get_attr("NDTA_CONFIG")
        if most is not None and config is not None:
            return NeighbourTable(config["entries"], most)
    return None
