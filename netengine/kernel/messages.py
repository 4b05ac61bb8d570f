"""rtnetlink messages for each kind of resource, by the names of pyroute2's message classes. No sockets here.

Source: include/uapi/linux/{if_link,if_addr,rtnetlink}.h.
"""

from __future__ import annotations

import os
import re
import socket
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from pyroute2.netlink import NLM_F_CREATE, NLM_F_EXCL
from pyroute2.netlink.rtnl import (
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELROUTE,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETROUTE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWLINKPROP,
    RTM_NEWROUTE,
    RTM_SETLINK,
)
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from netengine.kernel.request import Fixed, Request
from netengine.kernel.resources import (
    GRAVE_GROUP,
    IPV6_MIN_MTU,
    MARK_GROUP,
    ROUTE_PROTOCOL,
    Address,
    Bridge,
    Route,
    Veth,
)

Message = Any
"""A Request, or one of pyroute2's messages, which carry no types."""
Batch = list[tuple[str, Message]]
"""Messages with a few words each on what they do, for the error."""
_UP = 1  # IFF_UP
_RT_TABLE_MAIN = 254
ROUTE_OF_KERNEL = 2
"""RTPROT_KERNEL: the kernel made the route by itself, along with an address."""
_RTN_UNICAST = 1
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
_IFA_F_NODAD = 2
_ADDR_GEN_MODE_NONE = 1  # IN6_ADDR_GEN_MODE_NONE
NO_OWN_IPV6 = (
    "IFLA_AF_SPEC",
    Fixed(attrs=[("AF_INET6", {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", _ADDR_GEN_MODE_NONE)]})]),
)
"""The attribute of a link that gives itself no IPv6 address."""
_EXT_MASK_SKIP_STATS = 1 << 3  # RTEXT_FILTER_SKIP_STATS
_RELEASE = re.match(r"(\d+)\.(\d+)", os.uname().release)
RENAMES_WHAT_IS_UP = _RELEASE is None or (int(_RELEASE[1]), int(_RELEASE[2])) >= (6, 2)
"""Whether this kernel gives a link that is up another name, as all do since 6.2."""


def _link(
    kind: int, flags: int = 0, index: int = 0, name: str = "", attrs: list[tuple[str, Any]] | None = None
) -> Message:
    message = Request(ifinfmsg)
    message["header"]["type"] = kind
    message["header"]["flags"] = flags
    message["index"] = index
    message["attrs"] = ([("IFLA_IFNAME", name)] if name else []) + (attrs or [])
    return message


def _raised(message: Message) -> Message:
    message["flags"] = _UP
    message["change"] = _UP
    return message


def bridge_add(bridge: Bridge) -> Message:
    """A bridge without spanning tree, so that a port forwards from its first moment.

    Its MTU is set by a message of its own: one that it is born with is taken for a default, and gives way to 1,500 when the
    last port leaves (br_mtu_auto_adjust).
    """
    return _link(
        RTM_NEWLINK,
        NLM_F_CREATE | NLM_F_EXCL,
        name=bridge.name,
        attrs=[
            ("IFLA_ADDRESS", bridge.mac),
            ("IFLA_GROUP", MARK_GROUP),
            (
                "IFLA_LINKINFO",
                {
                    "attrs": [
                        ("IFLA_INFO_KIND", "bridge"),
                        ("IFLA_INFO_DATA", {"attrs": [("IFLA_BR_STP_STATE", 0), ("IFLA_BR_FORWARD_DELAY", 0)]}),
                    ]
                },
            ),
        ],
    )


def alternative_name(link: str, name: str) -> Message:
    return _link(
        RTM_NEWLINKPROP,
        NLM_F_CREATE | NLM_F_EXCL,
        name=link,
        attrs=[("IFLA_PROP_LIST", {"attrs": [("IFLA_ALT_IFNAME", name)]})],
    )


def link_up(name: str) -> Message:
    return _raised(_link(RTM_SETLINK, name=name))


def port_up(veth: Veth) -> Message:
    """Bring the bridge port of a veth pair up. RTM_NEWLINK without NLM_F_CREATE changes an existing link, slave data too.

    No IPv6 address of its own: it would send router solicitations into the network. Hairpin mode: where br_netfilter is
    loaded, a published port is translated while the packet is still on the bridge, and a container's own packet to its own
    published port must leave by the port that it came in by.
    """
    linkinfo = [_PORTS[veth.isolated]] if veth.master else []
    return _raised(_link(RTM_NEWLINK, name=veth.name, attrs=[*linkinfo, *no_own_ipv6(veth.mtu)]))


def _port(isolated: bool) -> tuple[str, Any]:
    port = {"attrs": [("IFLA_BRPORT_MODE", 1), ("IFLA_BRPORT_ISOLATED", int(isolated))]}
    info = [("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", port)]
    return "IFLA_LINKINFO", Fixed(attrs=info)


_PORTS = {isolated: _port(isolated) for isolated in (False, True)}


def no_own_ipv6(mtu: int) -> list[tuple[str, Any]]:
    """That a link gives itself no IPv6 address. One with a smaller MTU than IPv6's least has no IPv6, and the kernel refuses a
    message that speaks of it."""
    return [NO_OWN_IPV6] if mtu >= IPV6_MIN_MTU else []


def link_set(name: str, *, mac: str | None = None, mtu: int | None = None, master: int | None = None) -> Message:
    attrs: list[tuple[str, Any]] = []
    if mac is not None:
        attrs.append(("IFLA_ADDRESS", mac))
    if mtu is not None:
        attrs.append(("IFLA_MTU", mtu))
    if master is not None:
        attrs.append(("IFLA_MASTER", master))
    return _raised(_link(RTM_SETLINK, name=name, attrs=attrs))


def same_mac(name: str, mac: str) -> Message:
    """Set a link's MAC, and nothing else: where it has that MAC already, the kernel announces its addresses."""
    return _link(RTM_SETLINK, name=name, attrs=[("IFLA_ADDRESS", mac)])


def link_delete(name: str = "", index: int = 0) -> Message:
    return _link(RTM_DELLINK, name=name, index=index)


def link_bury(index: int, name: str) -> Batch:
    """Take a link out of use: down, no port of a bridge any more, marked for deletion, its old name free. The kernel sets the
    mark first: whoever hears of the rest sees it."""
    attrs: list[tuple[str, Any]] = [("IFLA_MASTER", 0), ("IFLA_GROUP", GRAVE_GROUP)]
    out = _link(RTM_SETLINK, index=index, name=name if RENAMES_WHAT_IS_UP else "", attrs=attrs)
    out["change"] = _UP
    batch = [(f"take {name} out of use", out)]
    if not RENAMES_WHAT_IS_UP:
        batch.append((f"rename to {name}", _link(RTM_SETLINK, index=index, name=name)))
    return batch


def graves_delete() -> Message:
    """Delete all buried links at once: deleting one by one costs the kernel some 16 ms each."""
    return _link(RTM_DELLINK, attrs=[("IFLA_GROUP", GRAVE_GROUP)])


def veth_add(veth: Veth, master_index: int, ns_fd: int) -> Message:
    """One message makes both ends: the peer is born named, addressed and inside its namespace, the port enslaved and down."""
    peer = [
        ("IFLA_IFNAME", veth.peer),
        ("IFLA_ADDRESS", veth.peer_mac),
        ("IFLA_MTU", veth.mtu),
        ("IFLA_NET_NS_FD", ns_fd),
    ]
    return _link(
        RTM_NEWLINK,
        NLM_F_CREATE | NLM_F_EXCL,
        name=veth.name,
        attrs=[
            ("IFLA_MTU", veth.mtu),
            *([("IFLA_MASTER", master_index)] if master_index else []),
            ("IFLA_GROUP", MARK_GROUP),
            (
                "IFLA_LINKINFO",
                {
                    "attrs": [
                        ("IFLA_INFO_KIND", "veth"),
                        ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", {"attrs": peer})]}),
                    ]
                },
            ),
        ],
    )


def link_get(name: str = "", index: int = 0) -> Message:
    return _link(RTM_GETLINK, name=name, index=index, attrs=[("IFLA_EXT_MASK", _EXT_MASK_SKIP_STATS)])


def links_dump() -> Message:
    return _link(RTM_GETLINK, attrs=[("IFLA_EXT_MASK", _EXT_MASK_SKIP_STATS)])


def _address(kind: int, flags: int, index: int, address: Address) -> Message:
    local, _, length = address.interface.partition("/")  # in the usual form: the model has no other
    message = Request(ifaddrmsg)
    message["header"]["type"] = kind
    message["header"]["flags"] = flags
    message["prefixlen"] = prefixlen = int(length)
    message["index"] = index
    attrs: list[tuple[str, Any]] = [("IFA_LOCAL", local), ("IFA_ADDRESS", local)]
    if ":" in local:
        message["family"] = socket.AF_INET6
        # IPAM leases each address once: without duplicate address detection it can be used, and announced, at once.
        message["flags"] = _IFA_F_NODAD
    else:
        message["family"] = socket.AF_INET
        if prefixlen < 31:
            attrs.append(("IFA_BROADCAST", _broadcast(local, prefixlen)))
    # Tells our addresses on a bridge from those that an administrator gives it. Kernels before 5.18 ignore it.
    attrs.append(("IFA_PROTO", ROUTE_PROTOCOL))
    message["attrs"] = attrs
    return message


def _broadcast(address: str, prefixlen: int) -> str:
    """The highest address of an IPv4 subnet. By hand: the standard library's objects take as long as all of the message."""
    number = int.from_bytes(socket.inet_aton(address), "big") | 0xFFFFFFFF >> prefixlen
    return socket.inet_ntoa(number.to_bytes(4, "big"))


def address_add(index: int, address: Address) -> Message:
    return _address(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, index, address)


def address_delete(index: int, address: Address) -> Message:
    return _address(RTM_DELADDR, 0, index, address)


def addresses_dump() -> Message:
    message = Request(ifaddrmsg)
    message["header"]["type"] = RTM_GETADDR
    return message


def _route(kind: int, flags: int, index: int, route: Route) -> Message:
    message = Request(rtmsg)
    message["header"]["type"] = kind
    message["header"]["flags"] = flags
    attrs: list[tuple[str, Any]] = [("RTA_TABLE", _RT_TABLE_MAIN), ("RTA_OIF", index)]
    if route.destination == "default":
        version = 6 if ":" in route.gateway else 4
    else:
        prefix = ip_network(route.destination)
        version = prefix.version
        message["dst_len"] = prefix.prefixlen
        if prefix.prefixlen:
            attrs.append(("RTA_DST", str(prefix.network_address)))
    if route.gateway:
        attrs.append(("RTA_GATEWAY", route.gateway))
    message["family"] = socket.AF_INET if version == 4 else socket.AF_INET6
    message["table"] = _RT_TABLE_MAIN
    message["type"] = _RTN_UNICAST
    message["proto"] = ROUTE_PROTOCOL
    message["scope"] = _SCOPE_UNIVERSE if route.gateway else _SCOPE_LINK
    message["attrs"] = attrs
    return message


def route_add(index: int, route: Route) -> Message:
    return _route(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, index, route)


def route_delete(index: int, route: Route) -> Message:
    return _route(RTM_DELROUTE, 0, index, route)


def route_get(address: str) -> Message:
    """Which route a packet to an address would take."""
    message = Request(rtmsg)
    message["header"]["type"] = RTM_GETROUTE
    version = ip_address(address).version
    message["family"] = socket.AF_INET if version == 4 else socket.AF_INET6
    message["dst_len"] = 32 if version == 4 else 128
    message["attrs"] = [("RTA_DST", address)]
    return message


_PRIORITY_OF_ADDRESSES = 256  # IP6_RT_PRIO_ADDRCONF, include/net/ip6_route.h


def connected_route(index: int, address: Address) -> Message:
    """The route that the kernel makes along with an address, word for word."""
    interface = ip_interface(address.interface)
    message = Request(rtmsg)
    message["header"]["type"] = RTM_NEWROUTE
    message["header"]["flags"] = NLM_F_CREATE | NLM_F_EXCL
    message["dst_len"] = interface.network.prefixlen
    message["table"] = _RT_TABLE_MAIN
    message["proto"] = ROUTE_OF_KERNEL
    message["type"] = _RTN_UNICAST
    message["attrs"] = [("RTA_DST", str(interface.network.network_address)), ("RTA_OIF", index)]
    if interface.version == 4:
        message["family"], message["scope"] = socket.AF_INET, _SCOPE_LINK
        message["attrs"].append(("RTA_PREFSRC", str(interface.ip)))
    else:
        message["family"] = socket.AF_INET6
        message["attrs"].append(("RTA_PRIORITY", _PRIORITY_OF_ADDRESSES))
    return message


def routes_dump(protocol: int = 0) -> Message:
    """The routes of the main table, of both families, of one routing protocol or (0) of all. The kernel sorts them out, since
    our sockets ask for strict checking (NETLINK_GET_STRICT_CHK)."""
    message = Request(rtmsg)
    message["header"]["type"] = RTM_GETROUTE
    message["family"] = socket.AF_UNSPEC
    message["table"] = _RT_TABLE_MAIN
    message["proto"] = protocol
    return message
