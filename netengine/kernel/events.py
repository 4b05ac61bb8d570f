"""What the kernel tells without being asked: changes of links, addresses, routes, forwarding, our nftables tables and mounts.

`Watch` listens in the network namespace of the thread that makes it and decodes only what is needed to decide whether a change
may concern us; whether it does, and what to do, is the engine's business. Inside sandboxes nothing is heard but deletions of
the rules that lead to the name server. sysctls other than forwarding, and files, make no events that could be heard here.

Source: include/uapi/linux/{rtnetlink,netconf}.h, include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from netengine.kernel import entryevents, filters
from netengine.kernel.attributes import by_type, text, u32
from netengine.kernel.descriptors import move_up
from netengine.kernel.entryevents import EntryTouched as EntryTouched
from netengine.kernel.listening import Listener
from netengine.kernel.listening import Overrun as Overrun
from netengine.kernel.nameservice import TABLE as NAMES_TABLE
from netengine.kernel.netlink import own_ports
from netengine.kernel.resources import GRAVE_GROUP, ROUTE_PROTOCOL
from netengine.kernel.ruleset import TABLE
from netengine.kernel.shaping import HANDLE

_NETLINK_ROUTE, _NETLINK_NETFILTER = 0, 12

# RTNLGRP_LINK 1, _TC 4, _IPV4_IFADDR 5, _IPV4_ROUTE 7, _IPV6_IFADDR 9, _IPV6_ROUTE 11, _IPV4_NETCONF 24, _IPV6_NETCONF 25;
# NFNLGRP_NFTABLES 7. Bit n-1 of the group mask.
_ROUTE_GROUPS = 1 << 0 | 1 << 3 | 1 << 4 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 23 | 1 << 24
_NFTABLES_GROUPS = 1 << 6

_NEWLINK, _DELLINK, _NEWADDR, _DELADDR, _NEWROUTE, _DELROUTE, _NEWNETCONF = 16, 17, 20, 21, 24, 25, 80  # RTM_*
_NEWQDISC, _DELQDISC, _TC_H_ROOT = 36, 37, 0xFFFFFFFF
_RTA_DST, _RTA_OIF, _RT_TABLE_MAIN, _RTN_UNICAST = 1, 4, 254, 1
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_GROUP = 1, 3, 4, 10, 27
_IFA_ADDRESS, _IFA_LOCAL, _IFA_LABEL = 1, 2, 3
_NETCONFA_IFINDEX, _NETCONFA_FORWARDING, _NETCONFA_ALL = 1, 2, -1
_IFF_UP = 1
_SUBSYSTEM_NFTABLES, _NEWGEN = 10, 15
_DELETIONS = {_SUBSYSTEM_NFTABLES << 8 | kind for kind in (2, 5, 8)}  # NFT_MSG_DEL{TABLE,CHAIN,RULE}
_TABLE_NAME = 1  # NFTA_TABLE_NAME, and NFTA_{CHAIN,RULE,SET,SET_ELEM_LIST}_TABLE
_GEN_PROC_NAME = 3
_HEADER = struct.Struct("=IHHII")

_UNHEARD = (
    # A port's state in its bridge, which a connect changes five times.
    filters.drop(filters.Type((_NEWLINK, _DELLINK)), filters.Byte(0, socket.AF_BRIDGE)),
    filters.drop(filters.Type((_NEWLINK, _DELLINK)), filters.Attribute(16, _IFLA_GROUP, GRAVE_GROUP)),
    filters.drop(filters.Type((_NEWROUTE,)), filters.Not(filters.Byte(4, _RT_TABLE_MAIN))),
    filters.drop(filters.Type((_NEWROUTE,)), filters.Byte(5, ROUTE_PROTOCOL)),
    filters.drop(filters.Type((_DELROUTE,)), filters.Not(filters.Byte(5, ROUTE_PROTOCOL))),
    filters.drop(filters.Type((_NEWNETCONF,)), filters.Not(filters.Attribute(4, _NETCONFA_IFINDEX, _NETCONFA_ALL))),
)
"""Of the rtnetlink groups, what `route_notices` would leave out."""


@dataclass(frozen=True, slots=True)
class LinkSeen:
    """A link is new or changed, and now is like this. `port`: it belongs to a bridge."""

    name: str
    up: bool
    mtu: int
    mac: str
    port: bool
    index: int = 0


@dataclass(frozen=True, slots=True)
class LinkGone:
    name: str


@dataclass(frozen=True, slots=True)
class AddressGone:
    """An address was taken from a link. Of an IPv6 address the kernel does not tell the link's name: "" then."""

    link: str
    address: str


@dataclass(frozen=True, slots=True)
class AddressSeen:
    """A link has an address that is new, or has changed."""

    address: str


@dataclass(frozen=True, slots=True)
class RouteGone:
    """A route that is marked as ours was deleted."""


@dataclass(frozen=True, slots=True)
class RouteSeen:
    """Somebody has added a route to a prefix (CIDR) to the main table; `index` is the interface it leads to, 0 for several."""

    destination: str
    index: int


@dataclass(frozen=True, slots=True)
class ForwardingOff:
    """net.ipv4.ip_forward, or net.ipv6.conf.all.forwarding, was set to 0."""

    ipv6: bool = False


@dataclass(frozen=True, slots=True)
class RateTouched:
    """The queueing discipline of an interface is another one than ours, or ours is gone."""

    index: int


@dataclass(frozen=True, slots=True)
class RulesTouched:
    """Another process changed our nftables table. `by` is its name, where the kernel told."""

    by: str = ""


@dataclass(frozen=True, slots=True)
class NamesTouched:
    """Rules of a name service in some sandbox were deleted, by us or others, for the `times`-th time since listening began."""

    times: int


@dataclass(frozen=True, slots=True)
class MountsChanged:
    """Something was mounted or unmounted: the file of a namespace may have lost its namespace."""


@dataclass(frozen=True, slots=True)
class RelayGone:
    """The process that carries IPv6 ports has ended: it has no door any more, or somebody killed it."""


Notice = (
    LinkSeen
    | LinkGone
    | AddressGone
    | AddressSeen
    | RouteGone
    | RouteSeen
    | ForwardingOff
    | RateTouched
    | EntryTouched
    | RulesTouched
    | NamesTouched
    | MountsChanged
    | RelayGone
    | Overrun
)


class Watch:
    """The event sockets. Read a descriptor of `descriptors` when it is readable; never blocks."""

    def __init__(self) -> None:
        self._route = Listener(_NETLINK_ROUTE, _ROUTE_GROUPS, _UNHEARD)
        # A socket of its own: thousands of entries may come and go at once, and must not push out word of anything else.
        self._entries = Listener(_NETLINK_ROUTE, entryevents.GROUPS, entryevents.UNHEARD)
        self._nftables = Listener(_NETLINK_NETFILTER, _NFTABLES_GROUPS)
        # Hears every namespace that has a number here, as one has whose cable ends here.
        self._names = Listener(_NETLINK_NETFILTER, _NFTABLES_GROUPS)
        with suppress(PermissionError):  # without CAP_NET_BROADCAST it hears this namespace alone, and so nothing
            self._names.hear_all_namespaces()
        self._deleting = False
        self._deleted = 0
        self._mountinfo = move_up(os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC))
        # mountinfo is always readable; a change is an exceptional condition, for which event loops do not wait.
        self._mounts = select.epoll()
        self._mounts.register(self._mountinfo, select.EPOLLPRI | select.EPOLLET)
        self._mounts.poll(0)
        self._ours: set[int] = own_ports()
        self._stranger: int | None = None
        """Who is in the middle of a transaction that changes our table."""

    def close(self) -> None:
        self._route.close()
        self._entries.close()
        self._nftables.close()
        self._names.close()
        self._mounts.close()
        os.close(self._mountinfo)

    @property
    def mounts(self) -> int:
        """The descriptor of which it is all that it can be read."""
        return self._mounts.fileno()

    def descriptors(self) -> tuple[int, ...]:
        return (
            self._route.fileno(),
            self._entries.fileno(),
            self._nftables.fileno(),
            self._names.fileno(),
            self._mounts.fileno(),
        )

    def read(self, descriptor: int) -> list[Notice]:
        """What has happened, oldest first; what cannot concern us is left out."""
        if descriptor == self._mounts.fileno():
            # That it was readable is the message: asking mountinfo again would find nothing new.
            return [MountsChanged()]
        if descriptor == self._route.fileno():
            return _drain(self._route, route_notices)
        if descriptor == self._entries.fileno():
            return _drain(self._entries, entryevents.notices)
        if descriptor == self._names.fileno():
            return _drain(self._names, self._name_notices)
        return _drain(self._nftables, self._rule_notices)

    def _name_notices(self, data: bytes) -> list[Notice]:
        out: list[Notice] = []
        for kind, _, body in _messages(data):
            if kind == _SUBSYSTEM_NFTABLES << 8 | _NEWGEN:
                if self._deleting:
                    self._deleted += 1
                    out.append(NamesTouched(self._deleted))
                self._deleting = False
            elif kind in _DELETIONS and text(by_type(body, 4).get(_TABLE_NAME, b"")) == NAMES_TABLE:
                self._deleting = True
        return out

    def _rule_notices(self, data: bytes) -> list[Notice]:
        out: list[Notice] = []
        for port, process in table_changes(data):
            if process is not None:
                if port == self._stranger:
                    out.append(RulesTouched(process))
                self._stranger = None
                continue
            if port == self._stranger:
                continue  # a flush of thousands of elements is as many messages
            if port not in self._ours:
                # libnftables opens its socket anew when it likes.
                self._ours = own_ports()
            if port not in self._ours:
                self._stranger = port
                out.append(RulesTouched())
        return out


def _drain(listener: Listener, decode: Callable[[bytes], Iterable[Notice]]) -> list[Notice]:
    out: list[Notice] = []
    for heard in listener.read():
        out += [heard] if isinstance(heard, Overrun) else decode(heard[0])
    return out


# -- decoding: pure ---------------------------------------------------------------------------------------------------


def route_notices(data: bytes) -> Iterator[Notice]:
    """What a datagram of the rtnetlink groups says."""
    for kind, _, body in _messages(data):
        if kind in (_NEWLINK, _DELLINK) and len(body) >= 16 and body[0] == socket.AF_UNSPEC:
            # Not AF_BRIDGE, a port's state in its bridge: that is sent as RTM_DELLINK too when a port leaves.
            yield _link(kind, body)
        elif kind in (_NEWADDR, _DELADDR) and len(body) >= 8:
            yield from _address(kind, body)
        elif kind == _DELROUTE and len(body) >= 12 and body[5] == ROUTE_PROTOCOL:
            yield RouteGone()
        elif kind == _NEWROUTE and len(body) >= 12:
            yield from _route(body)
        elif kind in (_NEWQDISC, _DELQDISC) and len(body) >= 20:
            index, handle, parent = struct.unpack_from("=iII", body, 4)  # of struct tcmsg
            if parent == _TC_H_ROOT and (kind == _DELQDISC) == (handle == HANDLE):
                yield RateTouched(index)
        elif kind == _NEWNETCONF and len(body) >= 4 and body[0] in (socket.AF_INET, socket.AF_INET6):
            attributes = by_type(body, 4)
            index, forwarding = attributes.get(_NETCONFA_IFINDEX), attributes.get(_NETCONFA_FORWARDING)
            if index == struct.pack("=i", _NETCONFA_ALL) and forwarding == bytes(4):
                yield ForwardingOff(ipv6=body[0] == socket.AF_INET6)


def _address(kind: int, body: bytes) -> Iterator[Notice]:
    attributes = by_type(body, 8)
    local = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS, b"")
    if len(local) not in (4, 16):
        return
    address = socket.inet_ntop(socket.AF_INET6 if len(local) == 16 else socket.AF_INET, local)
    if kind == _NEWADDR:
        yield AddressSeen(address)
    else:
        yield AddressGone(text(attributes.get(_IFA_LABEL, b"")).partition(":")[0], address)


def _route(body: bytes) -> Iterator[Notice]:
    # struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags. A default route leads into no subnet.
    length, table, protocol, kind = body[1], body[4], body[5], body[7]
    size = 4 if body[0] == socket.AF_INET else 16
    attributes = by_type(body, 12)
    destination = attributes.get(_RTA_DST, b"")
    if table != _RT_TABLE_MAIN or kind != _RTN_UNICAST or protocol == ROUTE_PROTOCOL or len(destination) != size:
        return
    if length and body[0] in (socket.AF_INET, socket.AF_INET6):
        address = socket.inet_ntop(body[0], destination)
        yield RouteSeen(f"{address}/{length}", u32(attributes.get(_RTA_OIF)))


def _link(kind: int, body: bytes) -> Notice:
    attributes = by_type(body, 16)
    name = text(attributes.get(_IFLA_IFNAME, b""))
    if kind == _DELLINK:
        return LinkGone(name)
    return LinkSeen(
        name,
        up=bool(struct.unpack_from("=I", body, 8)[0] & _IFF_UP),
        mtu=u32(attributes.get(_IFLA_MTU)),
        mac=attributes.get(_IFLA_ADDRESS, b"").hex(":"),
        port=bool(u32(attributes.get(_IFLA_MASTER))),
        index=struct.unpack_from("=i", body, 4)[0],
    )


def table_changes(data: bytes) -> Iterator[tuple[int, str | None]]:
    """Of each message on our tables: (port id of the socket that asked for it, None). The message that ends a transaction,
    on whichever tables, gives (port id, name of the process)."""
    for kind, port, body in _messages(data):
        if kind >> 8 != _SUBSYSTEM_NFTABLES:
            continue
        attributes = by_type(body, 4)
        if kind & 0xFF == _NEWGEN:
            yield port, text(attributes.get(_GEN_PROC_NAME, b""))
        elif text(attributes.get(_TABLE_NAME, b"")) == TABLE:
            yield port, None


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(type, port id of the sender, body) of each message."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, _, port = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            return
        yield kind, port, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3
