"""The few questions that the engine asks about what is *not* ours: the host's routes and addresses, whether a link exists.

Nothing is changed here. Runs on the kernel thread.
"""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import Any

from netengine.kernel import messages, sysctl
from netengine.kernel.host import Kernel
from netengine.kernel.resources import GRAVE_GROUP, HOST, MARK_GROUP

Prefix = IPv4Network | IPv6Network

_UP, _LOOPBACK = 1, 8  # IFF_UP, IFF_LOOPBACK


@dataclass(frozen=True, slots=True)
class Link:
    """A link of any owner: what the engine needs to know before it adopts or avoids one."""

    name: str
    index: int
    kind: str
    mtu: int
    ours: bool
    addresses: tuple[IPv4Interface | IPv6Interface, ...]
    mac: str = ""
    up: bool = True
    loopback: bool = False
    master: str = ""
    """The bridge or bond that it is a port of, or ""."""


def kind_of(link: Any) -> str:
    info = link.get_attr("IFLA_LINKINFO")
    return (info.get_attr("IFLA_INFO_KIND") if info else "") or ""


def host_routes(kernel: Kernel) -> list[Prefix]:
    """Destinations that the host reaches by links that are not ours, the default route aside."""
    sock = kernel.socket_in(HOST)
    ours: dict[int, bool] = {}
    out: list[Prefix] = []
    for message in sock.dump(messages.routes_dump()):
        destination, index = message.get_attr("RTA_DST"), message.get_attr("RTA_OIF") or 0
        if not destination or message.get_attr("RTA_TABLE") != 254:
            continue
        prefix = ip_network(f"{destination}/{message['dst_len']}", strict=False)
        if prefix.version == 6 and (prefix.is_link_local or prefix.is_loopback):
            continue  # of every link, and no destination
        if index not in ours:
            # Asked one by one: a host has few links with routes of their own, and may have a thousand without.
            link = _link(kernel, index=index) if index else None
            ours[index] = link is not None and link.get_attr("IFLA_GROUP") == MARK_GROUP
        if not ours[index]:
            out.append(prefix)
    return out


def router_listeners(kernel: Kernel) -> list[str]:
    """Links that take a default route from router advertisements for as long as the host does not forward (accept_ra=1).

    Not those with a master: what such a link receives is the master's.
    """
    links = kernel.socket_in(HOST).dump(messages.links_dump())
    names = [
        link.get_attr("IFLA_IFNAME")
        for link in links
        if link.get_attr("IFLA_GROUP") not in (MARK_GROUP, GRAVE_GROUP)
        and not link.get_attr("IFLA_MASTER")
        and not link["flags"] & _LOOPBACK
    ]
    return sorted(name for name in names if sysctl.read(f"net/ipv6/conf/{name}/accept_ra") == "1")


def find_link(kernel: Kernel, name: str) -> Link | None:
    """The host's link of that name, whoever owns it."""
    link = _link(kernel, name=name)
    if link is None:
        return None
    above = _link(kernel, index=link.get_attr("IFLA_MASTER")) if link.get_attr("IFLA_MASTER") else None
    addresses = tuple(
        ip_interface(f"{a.get_attr('IFA_LOCAL') or a.get_attr('IFA_ADDRESS')}/{a['prefixlen']}")
        for a in kernel.socket_in(HOST).dump(messages.addresses_dump())
        if a["index"] == link["index"]
    )
    return Link(
        name=link.get_attr("IFLA_IFNAME"),
        index=link["index"],
        kind=kind_of(link),
        mtu=link.get_attr("IFLA_MTU"),
        ours=link.get_attr("IFLA_GROUP") == MARK_GROUP,
        addresses=addresses,
        mac=link.get_attr("IFLA_ADDRESS") or "",
        up=bool(link["flags"] & _UP),
        loopback=bool(link["flags"] & _LOOPBACK),
        master=above.get_attr("IFLA_IFNAME") if above else "",
    )


def link_with(kernel: Kernel, address: str) -> Link | None:
    """The link that has an address of the host, of either family."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for a in kernel.socket_in(HOST).dump(messages.addresses_dump()):
        if a["family"] == family and (a.get_attr("IFA_LOCAL") or a.get_attr("IFA_ADDRESS")) == address:
            link = _link(kernel, index=a["index"])
            return find_link(kernel, link.get_attr("IFLA_IFNAME")) if link else None
    return None


def _link(kernel: Kernel, **which: Any) -> Any:
    """What the kernel says of one link of the host, by its `name` or `index`; None when there is none."""
    try:
        return kernel.socket_in(HOST).ask("look at a link", messages.link_get(**which))
    except OSError as e:
        if e.errno in (errno.ENODEV, errno.ERANGE, errno.EINVAL):  # the last two for a name that no link can have
            return None
        raise


def links_up(kernel: Kernel) -> dict[str, bool]:
    """All links of the host, whoever owns them: whether each is up."""
    links = kernel.socket_in(HOST).dump(messages.links_dump())
    return {link.get_attr("IFLA_IFNAME"): bool(link["flags"] & _UP) for link in links}


def link_names(kernel: Kernel) -> list[str]:
    """The names of the host's links that are not ours, the loopback interface aside."""
    links = kernel.socket_in(HOST).dump(messages.links_dump())
    return [
        link.get_attr("IFLA_IFNAME")
        for link in links
        if link.get_attr("IFLA_GROUP") not in (MARK_GROUP, GRAVE_GROUP) and not link["flags"] & _LOOPBACK
    ]


def host_addresses(kernel: Kernel) -> list[str]:
    """The host's IPv4 addresses."""
    return [
        a.get_attr("IFA_LOCAL") or a.get_attr("IFA_ADDRESS")
        for a in kernel.socket_in(HOST).dump(messages.addresses_dump())
        if a["family"] == socket.AF_INET
    ]


@dataclass(frozen=True, slots=True)
class HostAddress:
    """An address by which other hosts may reach this one, and the link that has it."""

    link: str
    address: IPv4Address | IPv6Address


def reachable_addresses(kernel: Kernel) -> list[HostAddress]:
    """The addresses of links that are up and not ours, of both families; those of loopback and link-local aside."""
    links = {
        link["index"]: link.get_attr("IFLA_IFNAME")
        for link in kernel.socket_in(HOST).dump(messages.links_dump())
        if link.get_attr("IFLA_GROUP") not in (MARK_GROUP, GRAVE_GROUP)
        and link["flags"] & _UP
        and not link["flags"] & _LOOPBACK
    }
    found = [
        HostAddress(links[a["index"]], ip_address(a.get_attr("IFA_LOCAL") or a.get_attr("IFA_ADDRESS")))
        for a in kernel.socket_in(HOST).dump(messages.addresses_dump())
        if a["index"] in links
    ]
    return [a for a in found if not (a.address.is_loopback or a.address.is_link_local or a.address.is_multicast)]
