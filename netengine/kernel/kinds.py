"""How each kind of resource is created, changed and removed. Which comes first is `kernel.plan`'s business, and what happens
when one fails is `kernel.host`'s.

Every function takes all resources of a kind at once, so that they share netlink batches and nftables transactions, and adds to
`made` what it really made, so that it can be undone.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

from netengine.errors import KernelRefused
from netengine.kernel import (
    aliases,
    bridges,
    insides,
    interfaces,
    messages,
    nameservice,
    namespaces,
    relays,
    shaping,
    stacked,
    sysctl,
    vxlan,
    wireguard,
)
from netengine.kernel.netlink import NetlinkSocket, is_gone
from netengine.kernel.nftables import commands
from netengine.kernel.plan import Change
from netengine.kernel.resources import (
    HOST,
    Address,
    Bridge,
    Element,
    Family,
    Fdb,
    HostPort,
    Ipvlan,
    LinkUp,
    Macvlan,
    NameService,
    Namespace,
    NamespaceAlias,
    Neighbour,
    Relay,
    Resource,
    Route,
    Sysctl,
    Table,
    TokenBucket,
    Veth,
    Vlan,
    Vxlan,
    WireGuard,
    WireGuardPeer,
)

if TYPE_CHECKING:
    from netengine.kernel.host import Kernel

_NAMESPACE_DEFAULTS = (
    # A link without IPv6 neither sends router solicitations nor gets a link-local address. `lo` keeps ::1.
    ("net/ipv6/conf/default/disable_ipv6", "1"),
    # Where a network has IPv6: no route from whoever in it plays the router (CVE-2020-10749), and a link-local address
    # that can be used at once.
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    # A link that comes up with an address announces it.
    ("net/ipv4/conf/default/arp_notify", "1"),
    ("net/ipv6/conf/default/ndisc_notify", "1"),
    # As Docker: port 80 and ping without privileges, since no other program shares this namespace.
    ("net/ipv4/ip_unprivileged_port_start", "0"),
    ("net/ipv4/ping_group_range", "0 2147483647"),
)
"""What a new namespace of ours, and every link in it, starts with."""


_GONE = os.strerror(errno.ENOENT)
"""What nft says of an element that is not there, or whose table is not."""


# -- creation ---------------------------------------------------------------------------------------------------------


def _create_ports(kernel: Kernel, resources: list[HostPort], made: list[Resource]) -> None:
    for r in resources:
        if r not in kernel.held:
            kernel.reserve(r.address, r.protocol, r.port)
            made.append(r)


def _create_namespaces(kernel: Kernel, resources: list[Namespace], made: list[Resource]) -> None:
    for r in resources:
        path = kernel.ns_path(r.name)
        if path.exists() and not namespaces.is_alive(path):
            path.unlink()
        fd = namespaces.create(path, kernel.home)
        made.append(r)
        try:
            insides.number(kernel, r.name, fd)
            with namespaces.entered(fd, kernel.home):
                kernel.sockets[r.name] = NetlinkSocket()
                kernel.names.prepare(r.name)
                for name, value in _NAMESPACE_DEFAULTS:
                    if sysctl.read(name) is not None:
                        sysctl.write(name, value)
        finally:
            os.close(fd)


_TOGETHER: dict[type, type] = {Address: LinkUp, Route: LinkUp}
"""Kinds that are created along with another one, by its function."""


def batches(resources: Iterable[Resource]) -> Iterator[tuple[type, list[Resource]]]:
    """What is created at once, in the given order: one kind, or all that an interface is given. The elements of a table that is
    made are made along with it, in its transaction: rules without their elements would let nothing through, or everything."""
    resources = list(resources)
    tables = {r.family for r in resources if isinstance(r, Table)}
    filling: list[Resource] = [r for r in resources if isinstance(r, Element) and r.family in tables]
    rest = (r for r in resources if not (isinstance(r, Element) and r.family in tables))
    for kind, group in groupby(rest, key=lambda r: _TOGETHER.get(type(r), type(r))):
        together = list(group)
        yield kind, together + filling if kind is Table else together


def _create_tables(kernel: Kernel, resources: list[Table | Element], made: list[Resource]) -> None:
    for table in resources:
        if isinstance(table, Table):
            elements = [r for r in resources if isinstance(r, Element) and r.family == table.family]
            before = kernel.nft.load(table, elements)
            made.append(table)
            made.extend(elements)
            # Flows of what was published before, by an earlier version say, go on as they are.
            _forget_flows(kernel, [r for r in elements if r not in before])


def _create_veths(kernel: Kernel, resources: list[Veth], made: list[Resource]) -> None:
    descriptors: list[int] = []
    groups: list[tuple[Veth, messages.Batch]] = []
    try:
        for r in resources:
            fd = os.open(kernel.ns_path(r.ns), os.O_RDONLY | os.O_CLOEXEC)
            descriptors.append(fd)
            master = kernel.index(HOST, r.master) if r.master else 0
            batch: messages.Batch = [
                (
                    f"create veth {r.name}{f' of bridge {r.master}' if r.master else ''}",
                    messages.veth_add(r, master, fd),
                )
            ]
            batch.append((f"bring {r.name} up", messages.port_up(r)))
            groups.append((r, batch))
        kernel.create_each(HOST, groups, made)
    finally:
        for fd in descriptors:
            os.close(fd)


def _create_name_services(kernel: Kernel, resources: list[NameService], made: list[Resource]) -> None:
    for r in resources:
        kernel.names.open(r)
        made.append(r)


def _create_sysctls(kernel: Kernel, resources: list[Sysctl], made: list[Resource]) -> None:
    for r in resources:
        _write_sysctl(kernel, r)
        made.append(r)


def _write_sysctl(kernel: Kernel, r: Sysctl) -> None:
    with kernel.inside(r.ns):
        try:
            sysctl.write(r.path, r.value)
        except OSError as e:
            raise KernelRefused(f"cannot set sysctl {r.path.replace('/', '.')} to {r.value!r}: {e.strerror}") from e


def _create_elements(kernel: Kernel, resources: list[Element], made: list[Resource]) -> None:
    kernel.nft.change("add", resources)
    made.extend(resources)
    _forget_flows(kernel, resources)


def _forget_flows(kernel: Kernel, resources: Iterable[Element]) -> None:
    """Flows to UDP ports that have just been published, or are no longer, are translated anew."""
    ports: dict[Family, set[int]] = {}
    for r in resources:
        if r.family in ("ip", "ip6") and r.container in ("ports", "address-ports") and "udp" in r.parts:
            ports.setdefault(r.family, set()).add(int(r.parts[-1]))
    for family, numbers in ports.items():
        if kernel.conntrack is not None:
            kernel.conntrack.forget_udp(numbers, family)


# -- change and deletion ----------------------------------------------------------------------------------------------


def change(kernel: Kernel, step: Change) -> None:
    _change(kernel, step)
    bridges.silence(step)


def _change(kernel: Kernel, step: Change) -> None:
    match step.old, step.new:
        case Bridge() as old, Bridge() as new:
            what = f"change bridge {new.name}"
            batch: messages.Batch = [(what, messages.link_set(new.name, mac=new.mac, mtu=new.mtu))]
            if old.mark != new.mark:
                batch.append((what, messages.alternative_name(new.name, new.mark)))
            kernel.execute(HOST, batch)
        case Veth(), Veth() as new:
            _change_veth(kernel, new)
        case Vxlan(), Vxlan() as new:
            vxlan.change(kernel, new)
        case WireGuard() as old, WireGuard() as new:
            wireguard.change(kernel, old, new)
        case WireGuardPeer(), WireGuardPeer() as new:
            wireguard.create_peers(kernel, [new], [])
        case ((Fdb() | Neighbour()), (Fdb() | Neighbour()) as new):
            vxlan.create_entries(kernel, [new], [])
        case Route() as old, Route() as new:
            interfaces.remove_routes(kernel, [old])
            interfaces.create(kernel, [new], [])
        case TokenBucket(), TokenBucket() as new:
            shaping.create(kernel, [new], [])
        case Sysctl(), Sysctl() as new:
            _write_sysctl(kernel, new)
        case Element() as old, Element() as new:
            kernel.nft.run(commands("delete", [old]) + commands("add", [new]))
            _forget_flows(kernel, [new])
        case NameService(), NameService() as new:
            _create_name_services(kernel, [new], [])
        case Relay(), Relay() as new:
            relays.create(kernel, [new], [])
        case NamespaceAlias(), NamespaceAlias() as new:
            aliases.create(kernel, [new], [])
        case old, new:
            raise TypeError(f"cannot change {old} into {new}")


def _change_veth(kernel: Kernel, new: Veth) -> None:
    what = f"change veth {new.name}"
    master = kernel.index(HOST, new.master) if new.master else 0
    batch: messages.Batch = [
        (what, messages.link_set(new.name, mtu=new.mtu, master=master)),
        (what, messages.port_up(new)),
    ]
    kernel.execute(HOST, batch)
    kernel.execute(new.ns, [(what, messages.link_set(new.peer, mtu=new.mtu))])


def _delete_name_services(kernel: Kernel, resources: list[NameService]) -> None:
    for r in resources:
        kernel.names.close(r.ns)
        if namespaces.is_alive(kernel.ns_path(r.ns)):
            kernel.names_removed += 1
            with kernel.inside(r.ns):
                kernel.graves.append(nameservice.remove_rules())
                kernel.names.prepare(r.ns)


def _delete_namespaces(kernel: Kernel, resources: list[Namespace]) -> None:
    for r in resources:
        kernel.names.forget(r.name)
        held = kernel.sockets.pop(r.name, None)
        if held is not None:
            held.close()
        namespaces.release(kernel.ns_path(r.name))


def _delete_tables(kernel: Kernel, resources: list[Table]) -> None:
    for r in resources:
        kernel.nft.unload(r)


def _delete_veths(kernel: Kernel, resources: list[Veth]) -> None:
    """Take them out of use now, which costs a millisecond, and let `Kernel.reap` delete them later, all at once.

    After this no packet passes, and the names of both ends and the address are free for the next user. The sandbox's end goes
    first: what is said of it from then on carries the mark of what is out of use, and makes nobody look (`kernel.insides`).
    """
    for r in resources:
        if not r.master:  # what is stacked on it must go with it, and at once
            kernel.remove(HOST, [(f"delete {r.name}", messages.link_delete(r.name))])
            continue
        buried = f"x{r.name}"[:15]
        try:
            _bury_inside(kernel, r, buried)
            kernel.execute(HOST, messages.link_bury(kernel.index(HOST, r.name), buried))
            kernel.graves.append(r.name)
        except OSError as e:
            if not is_gone(e):
                kernel.graves.append(r.name)  # it may be among them already, if only its answer was lost
                kernel.remove(HOST, [(f"delete {r.name}", messages.link_delete(r.name))])


def _bury_inside(kernel: Kernel, r: Veth, buried: str) -> None:
    if not kernel.has_namespace(r.ns):
        return
    try:
        # Asked of the socket that is there already: to enter the namespace for it costs more.
        peer = kernel.socket_in(r.ns).ask(f"look at {r.peer}", messages.link_get(name=r.peer))
        kernel.execute(r.ns, messages.link_bury(peer["index"], buried))
        kernel.buried.add((r.ns, peer["index"]))
    except OSError as e:
        if not is_gone(e):
            raise


def _delete_elements(kernel: Kernel, resources: list[Element]) -> None:
    left: list[KernelRefused] = []
    try:
        kernel.nft.change("delete", resources)
    except KernelRefused:
        # One that is missing fails the whole transaction: somebody flushed. Take them one by one.
        for r in resources:
            try:
                kernel.nft.change("delete", [r])
            except KernelRefused as e:
                if _GONE not in e.message:
                    left.append(e)
    _forget_flows(kernel, resources)
    if left:
        raise left[0]


def _keep(kernel: Kernel, resources: list[Resource]) -> None:
    """Nothing to remove: it goes with what it belongs to, or stays as it is."""


def _delete_ports(kernel: Kernel, resources: list[HostPort]) -> None:
    kernel.release(resources)


def _by_ns(resources: Iterable[Any]) -> Iterator[tuple[str, list[Any]]]:
    for ns, items in groupby(sorted(resources, key=lambda r: r.ns), key=lambda r: r.ns):
        yield ns, list(items)


CREATE: dict[type, Callable[[Kernel, Any, list[Resource]], None]] = {
    HostPort: _create_ports,
    Namespace: _create_namespaces,
    Table: _create_tables,
    Bridge: bridges.create,
    Veth: _create_veths,
    Vlan: stacked.create,
    Macvlan: stacked.create,
    Ipvlan: stacked.create,
    WireGuard: wireguard.create,
    WireGuardPeer: wireguard.create_peers,
    Vxlan: vxlan.create,
    Fdb: vxlan.create_entries,
    Neighbour: vxlan.create_entries,
    TokenBucket: shaping.create,
    LinkUp: interfaces.create,
    NameService: _create_name_services,
    Sysctl: _create_sysctls,
    Address: interfaces.create,
    Route: interfaces.create,
    Element: _create_elements,
    Relay: relays.create,
    NamespaceAlias: aliases.create,
}

DELETE: dict[type, Callable[[Kernel, Any], None]] = {
    HostPort: _delete_ports,
    Namespace: _delete_namespaces,
    Table: _delete_tables,
    Bridge: bridges.remove,
    Veth: _delete_veths,
    Vlan: stacked.remove,
    Macvlan: stacked.remove,
    Ipvlan: stacked.remove,
    WireGuard: wireguard.remove,
    WireGuardPeer: wireguard.remove_peers,
    Vxlan: vxlan.remove,
    Fdb: vxlan.remove_entries,
    Neighbour: vxlan.remove_entries,
    TokenBucket: shaping.remove,
    LinkUp: _keep,
    NameService: _delete_name_services,
    Sysctl: _keep,
    Address: interfaces.remove_addresses,
    Route: interfaces.remove_routes,
    Element: _delete_elements,
    Relay: relays.delete,
    NamespaceAlias: aliases.remove,
}
