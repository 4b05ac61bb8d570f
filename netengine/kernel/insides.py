"""What happens inside sandboxes, heard on one socket for all of them; and of the host, that a connected route was deleted.

A netlink socket with NETLINK_LISTEN_ALL_NSID gets the events of every network namespace that has a number (nsid) in the
socket's own, and with each event that number. Sandboxes get theirs when they are made (`number`), so that listening to 300 of
them costs no more than listening to one. Only what may be a loss is reported; whether it is one is the engine's business.

Source: include/uapi/linux/{netlink,net_namespace,rtnetlink}.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pyroute2.netlink.rtnl import RTM_GETNSID, RTM_NEWNSID
from pyroute2.netlink.rtnl.nsidmsg import nsidmsg

from netengine.kernel import filters, namespaces
from netengine.kernel.attributes import by_type, text, u32
from netengine.kernel.listening import HERE as HERE
from netengine.kernel.listening import Listener
from netengine.kernel.listening import Overrun as Overrun
from netengine.kernel.resources import GRAVE_GROUP, HOST, MARK_GROUP, ROUTE_PROTOCOL
from netengine.kernel.seen import Message

if TYPE_CHECKING:
    from netengine.kernel.host import Kernel

_NETLINK_ROUTE = 0
_HEADER = struct.Struct("=IHHII")
# RTNLGRP_LINK 1, _IPV4_IFADDR 5, _IPV4_ROUTE 7, _IPV6_IFADDR 9, _IPV6_ROUTE 11. Bit n-1 of the group mask.
_ROUTE_GROUPS = 1 << 0 | 1 << 4 | 1 << 6 | 1 << 8 | 1 << 10
_NEWLINK, _DELLINK, _NEWADDR, _DELADDR, _NEWROUTE, _DELROUTE = 16, 17, 20, 21, 24, 25  # RTM_*
_RTA_DST, _IFA_ADDRESS, _IFA_LOCAL = 1, 1, 2
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_GROUP, _IFLA_LINK_NETNSID = 1, 3, 4, 10, 27, 37
_IFF_UP = 1
_MAIN, _KERNEL = 254, 2  # RT_TABLE_MAIN, RTPROT_KERNEL

_LINKS = filters.Type((_NEWLINK, _DELLINK))
_UNHEARD = (
    filters.drop(_LINKS, filters.Byte(0, socket.AF_BRIDGE)),
    filters.drop(_LINKS, filters.Attribute(16, _IFLA_GROUP, GRAVE_GROUP)),
    # The host's ports, of which `events` hears.
    filters.drop(_LINKS, filters.Attribute(16, _IFLA_GROUP, MARK_GROUP), filters.Attribute(16, _IFLA_MASTER)),
    filters.drop(filters.Type((_NEWADDR, _NEWROUTE))),
    filters.drop(filters.Type((_DELROUTE,)), filters.Not(filters.Byte(4, _MAIN))),
)
"""Much of what `route_changes` would leave out. Which namespace an event is of, a filter cannot tell."""


@dataclass(frozen=True, slots=True)
class Change:
    """Something changed in the namespace with number `nsid`. `subject` is a link's name, an address, or a route's
    destination as `Route` has it. Only of a link does it say how that is now."""

    nsid: int
    kind: Literal["link", "address", "route"]
    subject: str
    up: bool = False
    mtu: int = 0
    mac: str = ""
    paired: bool = False
    """Its other end is in another namespace: a veth, and not a link that a program in the sandbox made for itself."""
    index: int = 0
    """The interface's, of a link."""


class Insides:
    """The event socket, in the network namespace of the thread that makes it. Never blocks."""

    def __init__(self) -> None:
        self._route = Listener(_NETLINK_ROUTE, _ROUTE_GROUPS, _UNHEARD)
        self._route.hear_all_namespaces()

    def close(self) -> None:
        self._route.close()

    def descriptors(self) -> tuple[int, ...]:
        return (self._route.fileno(),)

    def read(self, descriptor: int) -> list[Change | Overrun]:
        """What has happened, oldest first."""
        out: list[Change | Overrun] = []
        for heard in self._route.read():
            out += [heard] if isinstance(heard, Overrun) else route_changes(*heard)
        return out


# -- decoding: pure ---------------------------------------------------------------------------------------------------


def route_changes(data: bytes, nsid: int) -> Iterator[Change]:
    """What a datagram of the rtnetlink groups says. Of the host's events, which `events` has too, routes alone."""
    for kind, body in _messages(data):
        if kind == _DELROUTE and len(body) >= 12:
            # struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags.
            family, length, table, protocol = body[0], body[1], body[4], body[5]
            if table == _MAIN and protocol in (ROUTE_PROTOCOL, _KERNEL):
                destination = _address(by_type(body, 12).get(_RTA_DST))
                default = "default" if family == socket.AF_INET else "::/0"
                yield Change(nsid, "route", f"{destination}/{length}" if destination else default)
        elif nsid == HERE:
            continue
        elif kind == _DELADDR and len(body) >= 8:
            known = by_type(body, 8)
            yield Change(nsid, "address", _address(known.get(_IFA_LOCAL) or known.get(_IFA_ADDRESS)))
        elif kind in (_NEWLINK, _DELLINK) and len(body) >= 16 and body[0] == socket.AF_UNSPEC:
            known = by_type(body, 16)
            if u32(known.get(_IFLA_GROUP)) == GRAVE_GROUP:
                continue  # taken out of use by ourselves: renamed, not by anybody who meant harm
            index, flags = struct.unpack_from("=iI", body, 4)
            yield Change(
                nsid,
                "link",
                text(known.get(_IFLA_IFNAME)),
                up=kind == _NEWLINK and bool(flags & _IFF_UP),
                mtu=u32(known.get(_IFLA_MTU)),
                mac=known.get(_IFLA_ADDRESS, b"").hex(":"),
                paired=_IFLA_LINK_NETNSID in known,
                index=index,
            )


def _address(value: bytes | None) -> str:
    if value is None or len(value) not in (4, 16):
        return ""
    return socket.inet_ntop(socket.AF_INET if len(value) == 4 else socket.AF_INET6, value)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, body) of each message."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            return
        yield kind, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


# -- numbers: on the kernel thread ------------------------------------------------------------------------------------


def number(kernel: Kernel, ns: str, fd: int) -> None:
    """Give namespace `ns`, which `fd` is a descriptor of, a number in the host's, and remember it in `kernel.numbers`."""
    sock = kernel.socket_in(HOST)
    for error in sock.execute([("number a namespace", _nsid(RTM_NEWNSID, fd))]):
        if error is not None and error.errno != errno.EEXIST:  # it keeps the one that it has
            raise error
    # Numbers of namespaces that are gone are given anew: the last one that got it has it.
    kernel.numbers[sock.ask("the number of a namespace", _nsid(RTM_GETNSID, fd)).get_attr("NETNSA_NSID")] = ns


def number_all(kernel: Kernel) -> None:
    """Number the namespaces that an earlier life made."""
    kernel.numbers[HERE] = HOST
    for path in kernel.run_dir.iterdir():
        if namespaces.is_alive(path):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                number(kernel, path.name, fd)
            finally:
                os.close(fd)


def _nsid(kind: int, fd: int) -> Message:
    message = nsidmsg()
    message["header"]["type"] = kind
    attrs = [("NETNSA_FD", fd)]
    message["attrs"] = [*attrs, ("NETNSA_NSID", 0xFFFFFFFF)] if kind == RTM_NEWNSID else attrs
    return message
