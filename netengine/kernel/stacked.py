"""Links that are stacked on another link of the host: 802.1Q sub-interfaces, macvlan, ipvlan. How they are made, removed and
read back.

They are born inside their namespace, with name and address; the parent stays in the host's.

Source: drivers/net/{macvlan,ipvlan/ipvlan_main}.c, net/8021q/vlan_netlink.c, include/uapi/linux/if_link.h.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pyroute2.netlink import NLM_F_CREATE, NLM_F_EXCL, nla
from pyroute2.netlink.rtnl import RTM_NEWLINK
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from netengine.kernel import messages
from netengine.kernel.netlink import NetlinkError
from netengine.kernel.resources import HOST, MARK_GROUP, Ipvlan, Macvlan, Resource, Vlan

if TYPE_CHECKING:
    from netengine.kernel.host import Kernel

Stacked = Vlan | Macvlan | Ipvlan

_IPVLAN_MODES = ("l2", "l3", "l3s")  # enum ipvlan_mode
_IPVLAN_FLAGS = {"bridge": 0, "private": 1, "vepa": 2}  # IPVLAN_F_PRIVATE, IPVLAN_F_VEPA


class _IpvlanData(nla):  # type: ignore[misc]  # pyroute2 carries no types; its own class does not know the flags
    prefix = "IFLA_"
    nla_map = (
        ("IFLA_IPVLAN_UNSPEC", "none"),
        ("IFLA_IPVLAN_MODE", "uint16"),
        ("IFLA_IPVLAN_FLAGS", "uint16"),
    )


ifinfmsg.ifinfo.register_link_kind(module={"ipvlan": _IpvlanData})


def supports(kernel: Kernel, kind: str) -> bool:
    """Whether the kernel can make links of a kind (vlan, macvlan, ipvlan), loading its module if need be. Makes nothing: the
    request names no parent, which a kernel that knows the kind refuses as invalid."""
    message = _message([("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", kind)]})])
    (error,) = kernel.socket_in(HOST).execute([(f"ask for {kind}", message)])
    return error is None or error.errno != errno.EOPNOTSUPP


def create(kernel: Kernel, resources: list[Any], made: list[Resource]) -> None:
    for r in resources:
        fd = os.open(kernel.ns_path(_ns(r)), os.O_RDONLY | os.O_CLOEXEC) if _ns(r) else -1
        try:
            _create(kernel, r, fd)
        except NetlinkError as e:
            if e.lost:
                made.append(r)
            raise
        finally:
            if fd >= 0:
                os.close(fd)
        made.append(r)


def _create(kernel: Kernel, r: Stacked, fd: int) -> None:
    what = f"create {_kind(r)} {r.name} on {r.parent}"
    parent = kernel.index(HOST, r.parent)
    try:
        kernel.execute(HOST, [(what, link_add(r, parent, fd))])
    except NetlinkError as e:
        if e.errno != errno.EEXIST or not _ns(r):
            raise
        # Before Linux 6.14 a name that the host has itself (eth0!) is refused for a link that is born elsewhere. A request
        # that names an index is looked up by that alone.
        kernel.execute(HOST, [(what, link_add(r, parent, fd, _spare_index(kernel, _ns(r))))])


def _spare_index(kernel: Kernel, ns: str) -> int:
    """An interface index that neither the host nor the namespace uses."""
    taken = {index for index, _ in socket.if_nameindex()}
    with kernel.inside(ns):
        taken |= {index for index, _ in socket.if_nameindex()}
    return max(taken) + 1


def remove(kernel: Kernel, resources: list[Any]) -> None:
    for r in resources:
        kernel.remove(_ns(r), [(f"delete {r.name}", messages.link_delete(r.name))])


def link_add(r: Stacked, parent: int, ns_fd: int = -1, index: int = 0) -> messages.Message:
    """One message makes the link: named, marked, addressed and, with a descriptor, in that namespace. `index` 0: the kernel's
    choice."""
    attrs: list[tuple[str, Any]] = [("IFLA_IFNAME", r.name), ("IFLA_LINK", parent), ("IFLA_GROUP", MARK_GROUP)]
    if ns_fd >= 0:
        attrs.append(("IFLA_NET_NS_FD", ns_fd))
    if isinstance(r, Macvlan) and r.mac:
        attrs.append(("IFLA_ADDRESS", r.mac))
    if not isinstance(r, Vlan) and r.mtu:
        attrs.append(("IFLA_MTU", r.mtu))
    info = [("IFLA_INFO_KIND", _kind(r)), ("IFLA_INFO_DATA", {"attrs": _data(r)})]
    message = _message([*attrs, ("IFLA_LINKINFO", {"attrs": info})])
    message["index"] = index
    return message


def _data(r: Stacked) -> list[tuple[str, Any]]:
    match r:
        case Vlan(vid=vid):
            return [("IFLA_VLAN_ID", vid)]
        case Macvlan(mode=mode):
            return [("IFLA_MACVLAN_MODE", mode)]
        case Ipvlan(mode=mode, flag=flag):
            return [("IFLA_IPVLAN_MODE", _IPVLAN_MODES.index(mode)), ("IFLA_IPVLAN_FLAGS", _IPVLAN_FLAGS[flag])]


def _message(attrs: list[tuple[str, Any]]) -> messages.Message:
    message = ifinfmsg()
    message["header"]["type"] = RTM_NEWLINK
    message["header"]["flags"] = NLM_F_CREATE | NLM_F_EXCL
    message["attrs"] = attrs
    return message


def _kind(r: Stacked) -> str:
    return type(r).__name__.lower()


def _ns(r: Stacked) -> str:
    return HOST if isinstance(r, Vlan) else r.ns


# -- reading back -----------------------------------------------------------------------------------------------------


def read(link: Any, ns: str, host_names: Mapping[int, str], want: Mapping[tuple[str, ...], Resource]) -> Stacked | None:
    """The resource that a link of ours is, or None. What `want` leaves to the kernel (an MTU of 0, no MAC) is left out of the
    answer too."""
    info = link.get_attr("IFLA_LINKINFO")
    kind = info.get_attr("IFLA_INFO_KIND") if info else ""
    if link.get_attr("IFLA_GROUP") != MARK_GROUP or kind not in ("vlan", "macvlan", "ipvlan"):
        return None
    if ns != HOST and link.get_attr("IFLA_LINK_NETNSID") is None:
        return None  # its parent is in the sandbox too: the container's own
    data = info.get_attr("IFLA_INFO_DATA")
    name, parent = link.get_attr("IFLA_IFNAME"), host_names.get(link.get_attr("IFLA_LINK") or 0, "")
    mtu = link.get_attr("IFLA_MTU")
    if kind == "vlan":
        return Vlan(name, parent, data.get_attr("IFLA_VLAN_ID")) if ns == HOST else None
    wanted = want.get((kind, ns, name))
    if isinstance(wanted, Macvlan | Ipvlan) and not wanted.mtu:
        mtu = 0
    if kind == "macvlan":
        mode = data.get_attr("IFLA_MACVLAN_MODE")
        return Macvlan(ns, name, parent, mode, "" if mode == "passthru" else link.get_attr("IFLA_ADDRESS"), mtu)
    number, bits = data.get_attr("IFLA_IPVLAN_MODE"), data.get_attr("IFLA_IPVLAN_FLAGS") or 0
    flag = next((word for word, value in _IPVLAN_FLAGS.items() if value == bits), str(bits))
    return Ipvlan(ns, name, parent, _IPVLAN_MODES[number], flag, mtu)
