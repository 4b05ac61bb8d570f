"""VXLAN links, their forwarding entries and their neighbours: how they are made, removed and read back.

A link of ours has what we gave it and nothing else: it does not learn, and what has expired or was looked for is not there.

Source: drivers/net/vxlan/vxlan_core.c, net/core/{rtnetlink,neighbour}.c, include/uapi/linux/{if_link,neighbour}.h.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from pyroute2.netlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE
from pyroute2.netlink.rtnl import RTM_DELNEIGH, RTM_GETNEIGH, RTM_NEWLINK, RTM_NEWNEIGH
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg

from netengine.errors import Conflict, KernelRefused, Unsupported
from netengine.kernel import messages
from netengine.kernel.netlink import NetlinkError, is_gone
from netengine.kernel.request import Request
from netengine.kernel.resources import HOST, MARK_GROUP, ROUTE_PROTOCOL, Fdb, Neighbour, Resource, Vxlan

if TYPE_CHECKING:
    from netengine.kernel.host import Kernel

_NUD_PERMANENT = 0x80
_NUD_NOARP = 0x40  # the kernel's word for "static" in a forwarding table: it does not age
_NTF_SELF = 0x02
_UP = 1  # IFF_UP


# -- links ------------------------------------------------------------------------------------------------------------


def create(kernel: Kernel, resources: list[Vxlan], made: list[Resource]) -> None:
    """Raises Conflict when the VNI or the port is somebody else's, KernelRefused when the address is not the host's."""
    for r in resources:
        parent = kernel.index(HOST, r.parent) if r.parent else 0
        _check_local(r, parent)
        batch: messages.Batch = [
            (f"create {r.name}", link_add(r, parent)),
            # Said before it is up: a link that comes up gives itself an address at once.
            *[(f"set {r.name}", _link(0, [("IFLA_IFNAME", r.name), own])) for own in messages.no_own_ipv6(r.mtu)],
            (f"bring {r.name} up", port_up(r, kernel.index(HOST, r.master))),
        ]
        try:
            kernel.create_each(HOST, [(r, batch)], made)
        except NetlinkError as e:
            raise _explained(e, r, made) from e


def _check_local(r: Vxlan, parent: int) -> None:
    """The kernel takes any address, and sends nothing from one that it does not have. In the host's namespace."""
    family = socket.AF_INET if ip_address(r.local).version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.bind((r.local, 0) if family == socket.AF_INET else (r.local, 0, 0, parent))
        except OSError as e:
            if e.errno != errno.EADDRNOTAVAIL:
                raise
            raise KernelRefused(
                f"cannot create {r.name}: {r.local} is not an address of this host, so no frame could leave from it; "
                "give the host that address back, or leave the cluster and join it again with one that it has "
                "(--advertise-addr, --data-path-addr)"
            ) from e


def _explained(e: NetlinkError, r: Vxlan, made: list[Resource]) -> Exception:
    if e.errno == errno.EADDRINUSE:
        return Conflict(
            f"cannot create {r.name}: UDP port {r.port}, the cluster's data path port, is in use on this host by another "
            f"program; `ss -lunp sport = :{r.port}` shows which: end it, or make the cluster with another --data-path-port"
        )
    if e.errno == errno.EEXIST and r not in made and "VNI" in str(e):
        return Conflict(
            f"cannot create {r.name}: another VXLAN link of this host has the network identifier {r.vni} on UDP port "
            f"{r.port} already; `ip -d link show type vxlan` shows which: remove it, or make the network with another one "
            "(-o com.docker.network.driver.overlay.vxlanid_list)"
        )
    if e.errno == errno.EOPNOTSUPP:
        return Unsupported(f"cannot create {r.name}: this kernel has no VXLAN (module vxlan, CONFIG_VXLAN)")
    return e


def link_add(r: Vxlan, parent: int = 0) -> messages.Message:
    """One message makes the link, down and no port of a bridge yet. Checksums are as the kernel has them: on."""
    local = "IFLA_VXLAN_LOCAL" if ip_address(r.local).version == 4 else "IFLA_VXLAN_LOCAL6"
    data: list[tuple[str, Any]] = [
        ("IFLA_VXLAN_ID", r.vni),
        (local, r.local),
        *([("IFLA_VXLAN_LINK", parent)] if parent else []),
        ("IFLA_VXLAN_LEARNING", 0),
        ("IFLA_VXLAN_PROXY", 1),
        ("IFLA_VXLAN_PORT", r.port),
    ]
    info = [("IFLA_INFO_KIND", "vxlan"), ("IFLA_INFO_DATA", {"attrs": data})]
    return _link(
        NLM_F_CREATE | NLM_F_EXCL,
        [
            ("IFLA_IFNAME", r.name),
            ("IFLA_MTU", r.mtu),
            ("IFLA_GROUP", MARK_GROUP),
            ("IFLA_LINKINFO", {"attrs": info}),
        ],
    )


def port_up(r: Vxlan, master: int) -> messages.Message:
    """A port of its bridge, with no IPv6 address of its own, up: only now the kernel takes the UDP port."""
    message = _link(
        0,
        [
            ("IFLA_IFNAME", r.name),
            ("IFLA_MTU", r.mtu),
            ("IFLA_MASTER", master),
            *messages.no_own_ipv6(r.mtu),
        ],
    )
    message["flags"] = message["change"] = _UP
    return message


def _link(flags: int, attrs: list[tuple[str, Any]]) -> messages.Message:
    message = Request(ifinfmsg)
    message["header"]["type"] = RTM_NEWLINK
    message["header"]["flags"] = flags
    message["attrs"] = attrs
    return message


def change(kernel: Kernel, new: Vxlan) -> None:
    try:
        what = f"change {new.name}"
        # The MTU first: with a larger one the link may have IPv6 that it did not have.
        batch: messages.Batch = [(what, messages.link_set(new.name, mtu=new.mtu))]
        kernel.execute(HOST, [*batch, (what, port_up(new, kernel.index(HOST, new.master)))])
    except NetlinkError as e:
        raise _explained(e, new, [new]) from e


def remove(kernel: Kernel, resources: list[Vxlan]) -> None:
    kernel.remove(HOST, [(f"delete {r.name}", messages.link_delete(r.name)) for r in resources])


def read(link: Any, host_names: Mapping[int, str]) -> Vxlan | None:
    """The resource that a link of the host is, or None. One of ours that somebody made to learn or to flood is no more
    what we made, and is made anew: it has port 0 here."""
    info = link.get_attr("IFLA_LINKINFO")
    if link.get_attr("IFLA_GROUP") != MARK_GROUP or not info or info.get_attr("IFLA_INFO_KIND") != "vxlan":
        return None
    data = info.get_attr("IFLA_INFO_DATA")
    strict = data.get_attr("IFLA_VXLAN_PROXY") and not data.get_attr("IFLA_VXLAN_LEARNING")
    return Vxlan(
        name=link.get_attr("IFLA_IFNAME"),
        vni=data.get_attr("IFLA_VXLAN_ID"),
        local=data.get_attr("IFLA_VXLAN_LOCAL") or data.get_attr("IFLA_VXLAN_LOCAL6") or "",
        port=data.get_attr("IFLA_VXLAN_PORT") if strict else 0,
        master=host_names.get(link.get_attr("IFLA_MASTER") or 0, ""),
        mtu=link.get_attr("IFLA_MTU"),
        parent=host_names.get(data.get_attr("IFLA_VXLAN_LINK") or 0, ""),
        up=bool(link["flags"] & _UP),
    )


# -- what leads through them --------------------------------------------------------------------------------------------


def create_entries(kernel: Kernel, resources: list[Fdb | Neighbour], made: list[Resource]) -> None:
    """Forwarding entries, or neighbours: thousands cost one look at each link, and a message each.

    One that is there is ours, from an earlier life say, and is replaced.
    """
    indices = _indices(kernel, resources)
    groups: list[tuple[Fdb | Neighbour, messages.Batch]] = [
        (r, [(f"add {_title(r)}", entry_add(r, indices[r.link], _via(r, indices)))]) for r in resources
    ]
    kernel.create_each(HOST, groups, made)


def remove_entries(kernel: Kernel, resources: list[Fdb | Neighbour]) -> None:
    batch: messages.Batch = []
    indices: dict[str, int] = {}
    for r in resources:
        try:
            if r.link not in indices:
                indices[r.link] = kernel.index(HOST, r.link)
        except OSError as e:
            if is_gone(e):
                continue  # with its link
            raise
        batch.append((f"delete {_title(r)}", entry_delete(r, indices[r.link])))
    kernel.remove(HOST, batch)


def _indices(kernel: Kernel, resources: Iterable[Fdb | Neighbour]) -> dict[str, int]:
    links = {r.link for r in resources} | {r.via for r in resources if isinstance(r, Fdb) and r.via}
    return {link: kernel.index(HOST, link) for link in links}


def _via(r: Fdb | Neighbour, indices: Mapping[str, int]) -> int:
    return indices[r.via] if isinstance(r, Fdb) and r.via else 0


def _title(r: Fdb | Neighbour) -> str:
    if isinstance(r, Fdb):
        return f"the forwarding entry of {r.mac} on {r.link}"
    return f"neighbour {r.address} on {r.link}"


def entry_add(r: Fdb | Neighbour, index: int, via: int = 0) -> messages.Message:
    """Of a forwarding entry NLM_F_REPLACE changes the one remote that it has; of a neighbour the MAC."""
    return _entry(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, r, index, via)


def entry_delete(r: Fdb | Neighbour, index: int) -> messages.Message:
    return _entry(RTM_DELNEIGH, 0, r, index, 0)


def _entry(kind: int, flags: int, r: Fdb | Neighbour, index: int, via: int) -> messages.Message:
    message = Request(ndmsg)
    message["header"]["type"] = kind
    message["header"]["flags"] = flags
    message["ifindex"] = index
    message["state"] = _NUD_PERMANENT
    if isinstance(r, Fdb):
        message["family"], message["flags"] = socket.AF_BRIDGE, _NTF_SELF
        # Without a remote all of a MAC's are deleted, ours and those that somebody appended.
        remote = [("NDA_DST", r.remote)] if kind == RTM_NEWNEIGH else []
        message["attrs"] = [("NDA_LLADDR", r.mac), *remote, *([("NDA_IFINDEX", via)] if via else [])]
        return message
    message["family"] = socket.AF_INET if ip_address(r.address).version == 4 else socket.AF_INET6
    message["attrs"] = [("NDA_DST", r.address)]
    if kind == RTM_NEWNEIGH:
        message["attrs"] += [("NDA_LLADDR", r.mac), ("NDA_PROTOCOL", ROUTE_PROTOCOL)]
    return message


def entries_dump(index: int) -> messages.Message:
    """The forwarding table of one link: also that of its bridge, as far as it concerns this port."""
    message = Request(ndmsg)
    message["header"]["type"] = RTM_GETNEIGH
    message["family"] = socket.AF_BRIDGE
    message["ifindex"] = index
    return message


def neighbours_dump(index: int) -> messages.Message:
    """The neighbours of both families on one link. The kernel sorts them out."""
    message = Request(ndmsg)
    message["header"]["type"] = RTM_GETNEIGH
    message["family"] = socket.AF_UNSPEC
    message["attrs"] = [("NDA_IFINDEX", index)]
    return message


def observe(kernel: Kernel, links: Mapping[int, str], names: Mapping[int, str]) -> Iterator[Fdb | Neighbour]:
    """The permanent entries of VXLAN links of ours, given by index; `names` are those of all links of the host.

    Two dumps a link, which the kernel filters; an entry costs some 25 microseconds, most of them here.
    """
    for index, link in links.items():
        remotes: dict[str, set[tuple[str, str]]] = {}
        for entry in kernel.socket_in(HOST).dump(entries_dump(index)):
            if entry["flags"] & _NTF_SELF and entry["state"] & (_NUD_PERMANENT | _NUD_NOARP):
                via = names.get(entry.get_attr("NDA_IFINDEX") or 0, "")
                remotes.setdefault(entry.get_attr("NDA_LLADDR"), set()).add((entry.get_attr("NDA_DST") or "", via))
        for mac, found in remotes.items():
            # The entry that floods has several remotes, if somebody made one: a copy goes to each.
            yield Fdb(link, mac, ",".join(sorted(a for a, _ in found)), ",".join(sorted({v for _, v in found})))
        for entry in kernel.socket_in(HOST).dump(neighbours_dump(index)):
            if entry["state"] & _NUD_PERMANENT:
                yield Neighbour(link, entry.get_attr("NDA_DST"), entry.get_attr("NDA_LLADDR"))
