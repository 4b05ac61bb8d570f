"""Reading the kernel back: which resources of ours exist, found by their ownership marks, with or without a database.

Nothing is changed here. Runs on the kernel thread. What the engine asks about others is answered in `theirs`.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface
from itertools import groupby
from operator import attrgetter
from typing import Any

from netengine.kernel import messages, nameservice, namespaces, shaping, stacked, sysctl, vxlan, wireguard
from netengine.kernel.host import Kernel
from netengine.kernel.nftables import is_intact, read_elements
from netengine.kernel.resources import (
    GRAVE_GROUP,
    HOST,
    MARK_GROUP,
    ROUTE_PROTOCOL,
    Address,
    Bridge,
    Fdb,
    Key,
    LinkUp,
    NameService,
    Namespace,
    NamespaceAlias,
    Neighbour,
    Resource,
    Route,
    Sysctl,
    Table,
    TokenBucket,
    Veth,
    Vxlan,
    WireGuard,
    WireGuardPeer,
)
from netengine.kernel.ruleset import FAMILIES
from netengine.kernel.theirs import kind_of

log = logging.getLogger(__name__)

MARK_PREFIX = "netengine-"
"""What the alternative name of every bridge of ours begins with."""

OF_THE_HOST = (Bridge, Veth, WireGuard, WireGuardPeer, Vxlan, Fdb, Neighbour)
"""What is in the host's namespace alone, or has an end there."""

_UP = 1  # IFF_UP


def observe(kernel: Kernel, want: Iterable[Resource] = ()) -> set[Resource]:
    """Everything of ours in the kernel, and of `want` what can only be looked up by name (sysctls, addresses of links that
    are not ours). The answer is comparable with what drivers render: equal sets mean that nothing is to be done."""
    out: set[Resource] = {*kernel.held_ports(), *kernel.relays.doors()}
    _observe_links(kernel, list(want), _namespaces(kernel), out)
    _observe_tables(kernel, out)
    if kernel.alias_dir.is_dir():
        for path in kernel.alias_dir.iterdir():
            if kernel.owns_alias(path):
                out.add(NamespaceAlias(path.name, path.readlink().name))
    return out


def observe_rules(kernel: Kernel) -> set[Resource]:
    """Of everything of ours only the rules and their elements."""
    out: set[Resource] = set()
    _observe_tables(kernel, out)
    return out


def observe_host(kernel: Kernel, want: Iterable[Resource]) -> set[Resource]:
    """Links, addresses and sysctls of ours in the host namespace, without a look into any other: of a veth the inner end is
    taken to be as wanted."""
    want = list(want)
    out: set[Resource] = set()
    _observe_host(kernel, [r for r in want if not isinstance(r, Veth)], {}, out)
    veths = {r.name: r for r in want if isinstance(r, Veth)}
    links = kernel.socket_in(HOST).dump(messages.links_dump())
    names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in links}
    for link in links:
        veth = veths.get(link.get_attr("IFLA_IFNAME"))
        if veth is not None and link.get_attr("IFLA_GROUP") == MARK_GROUP:
            port = _slave_data(link)
            out.add(
                replace(
                    veth,
                    master=names.get(link.get_attr("IFLA_MASTER") or 0, ""),
                    mtu=link.get_attr("IFLA_MTU"),
                    isolated=bool(port.get_attr("IFLA_BRPORT_ISOLATED")) if port else False,
                    up=bool(link["flags"] & _UP),
                )
            )
    out |= {r for r in want if isinstance(r, Sysctl) and r.ns == HOST and _sysctl(kernel, r) == r.value}
    return {r for r in out if isinstance(r, (*OF_THE_HOST, Address, Sysctl, TokenBucket))}


def observe_sysctls(kernel: Kernel, want: Iterable[Sysctl]) -> set[Sysctl]:
    """Those of `want` that are so, or that the kernel does not have: a few microseconds each, and forty for a namespace."""
    out: set[Sysctl] = set()
    for ns, group in groupby(sorted(want, key=attrgetter("ns")), key=attrgetter("ns")):
        items = list(group)
        try:
            with kernel.inside(ns):
                out |= {r for r in items if sysctl.read(r.path) in (r.value, None)}
        except OSError:  # a namespace without its file
            out |= set(items)
    return out


def observe_inside(kernel: Kernel, want: Iterable[Resource], inside: Iterable[str]) -> set[Resource]:
    """Of everything of ours only what is inside those namespaces."""
    alive = {ns for ns in inside if kernel.has_namespace(ns)}
    out: set[Resource] = set()
    _observe_links(kernel, list(want), alive, out)
    return {r for r in out if getattr(r, "ns", HOST) in alive or (isinstance(r, Namespace) and r.name in alive)}


def _observe_links(kernel: Kernel, want: list[Resource], inside: set[str], out: set[Resource]) -> None:
    """All but rules and files, of the host and of those namespaces."""
    inner = {ns: _links_in(kernel, ns) for ns in sorted(inside)}
    by_key: dict[Key, Resource] = {r.key: r for r in want}
    names = _observe_host(kernel, want, inner, out)
    addresses = {r for r in want if isinstance(r, Address)}
    for ns, links in inner.items():
        out.add(Namespace(ns))
        _observe_namespace(kernel, ns, links, addresses, out)
        out |= {s for link in links.values() if (s := stacked.read(link, ns, names, by_key)) is not None}
    for r in want:
        if isinstance(r, Sysctl) and _sysctl(kernel, r) == r.value:
            out.add(r)
        if isinstance(r, NameService) and (ports := name_ports(kernel, r.ns)) is not None:
            kernel.name_ports[r.ns] = ports
            out.add(r)


def _namespaces(kernel: Kernel) -> set[str]:
    return {path.name for path in kernel.run_dir.iterdir() if namespaces.is_alive(path)}


def _sysctl(kernel: Kernel, r: Sysctl) -> str | None:
    try:
        with kernel.inside(r.ns):
            return sysctl.read(r.path)
    except OSError:
        return None


def name_ports(kernel: Kernel, ns: str) -> tuple[int, int] | None:
    """The (UDP, TCP) ports that the name service's rules in a namespace lead to; None without complete rules."""
    try:
        with kernel.inside(ns):
            return nameservice.ports()
    except OSError:
        return None


def _observe_host(
    kernel: Kernel, want: list[Resource], inner: dict[str, dict[int, Any]], out: set[Resource]
) -> dict[int, str]:
    """Adds what is ours to `out`; answers the names of all links by index."""
    peers = {
        link.get_attr("IFLA_LINK"): (ns, link)
        for ns, links in inner.items()
        for link in links.values()
        if kind_of(link) == "veth"  # what is stacked on a link names it likewise
    }
    links = kernel.socket_in(HOST).dump(messages.links_dump())
    by_index = {link["index"]: link for link in links}
    wanted_links = {r.link for r in want if isinstance(r, Address) and r.ns == HOST}
    wanted_routes = {r.link for r in want if isinstance(r, Route) and r.ns == HOST}
    ours: set[str] = set()
    overlays: dict[int, str] = {}
    tunnels: dict[str, Any] = {}
    names = {index: link.get_attr("IFLA_IFNAME") for index, link in by_index.items()}
    by_key: dict[Key, Resource] = {r.key: r for r in want}
    for link in links:
        if link.get_attr("IFLA_GROUP") != MARK_GROUP:
            continue
        name = link.get_attr("IFLA_IFNAME")
        kind = kind_of(link)
        if kind == "bridge":
            ours.add(name)
            up = bool(link["flags"] & _UP)
            out.add(Bridge(name, link.get_attr("IFLA_ADDRESS"), link.get_attr("IFLA_MTU"), _mark(link), up))
        elif kind == "veth":
            veth = _veth(link, by_index, peers)
            if veth is not None:
                out.add(veth)
        elif (found := vxlan.read(link, names)) is not None:
            out.add(found)
            overlays[link["index"]] = name
        elif wireguard.is_one(link):
            tunnels[name] = link
        elif (r := stacked.read(link, HOST, names, by_key)) is not None:
            out.add(r)
            ours.add(name)
            if link["flags"] & _UP:
                out.add(LinkUp(HOST, name))
    _observe_addresses(kernel, HOST, names, ours | wanted_links, {r for r in want if isinstance(r, Address)}, out)
    _observe_routes(kernel, HOST, names, wanted_routes, out)
    out.update(wireguard.read(kernel, tunnels, by_key))
    out.update(vxlan.observe(kernel, overlays, names))
    _observe_rates(kernel, HOST, [link for link in links if link.get_attr("IFLA_GROUP") == MARK_GROUP], out)
    _without_cut_off(kernel, HOST, by_index, out)
    return names


def _observe_rates(kernel: Kernel, ns: str, links: Iterable[Any], out: set[Resource]) -> None:
    shaped = {
        link["index"]: link.get_attr("IFLA_IFNAME") for link in links if link.get_attr("IFLA_QDISC") == shaping.KIND
    }
    if shaped:
        out.update(shaping.observe(kernel, ns, shaped))


def _mark(link: Any) -> str:
    properties = link.get_attr("IFLA_PROP_LIST")
    names = properties.get_attrs("IFLA_ALT_IFNAME") if properties else []
    return next((n for n in names if n.startswith(MARK_PREFIX)), "")


def _veth(link: Any, by_index: dict[int, Any], peers: dict[int, tuple[str, Any]]) -> Veth | None:
    """The veth whose host end is `link`; None when its other end is in no namespace of ours."""
    ns, peer = peers.get(link["index"], ("", None))
    if peer is None or peer["index"] != link.get_attr("IFLA_LINK"):
        return None
    master = by_index.get(link.get_attr("IFLA_MASTER") or 0)
    port = _slave_data(link)
    return Veth(
        name=link.get_attr("IFLA_IFNAME"),
        master=master.get_attr("IFLA_IFNAME") if master else "",
        ns=ns,
        peer=peer.get_attr("IFLA_IFNAME"),
        peer_mac=peer.get_attr("IFLA_ADDRESS"),
        mtu=link.get_attr("IFLA_MTU") if link.get_attr("IFLA_MTU") == peer.get_attr("IFLA_MTU") else 0,
        isolated=bool(port.get_attr("IFLA_BRPORT_ISOLATED")) if port else False,
        up=bool(link["flags"] & _UP),
    )


def _slave_data(link: Any) -> Any:
    info = link.get_attr("IFLA_LINKINFO")
    return info.get_attr("IFLA_INFO_SLAVE_DATA") if info else None


def _links_in(kernel: Kernel, ns: str) -> dict[int, Any]:
    links = kernel.socket_in(ns).dump(messages.links_dump())
    return {link["index"]: link for link in links if link.get_attr("IFLA_GROUP") != GRAVE_GROUP}


def _observe_namespace(
    kernel: Kernel, ns: str, links: dict[int, Any], wanted: set[Address], out: set[Resource]
) -> None:
    names = {index: link.get_attr("IFLA_IFNAME") for index, link in links.items()}
    for link in links.values():
        if link["flags"] & _UP:
            out.add(LinkUp(ns, link.get_attr("IFLA_IFNAME")))
    _observe_addresses(kernel, ns, names, set(names.values()) - {"lo"}, wanted, out)
    _observe_routes(kernel, ns, names, set(names.values()), out)
    _observe_rates(kernel, ns, links.values(), out)
    _without_cut_off(kernel, ns, links, out)


def _observe_addresses(
    kernel: Kernel, ns: str, names: dict[int, str], links: set[str], wanted: set[Address], out: set[Resource]
) -> None:
    for message in kernel.socket_in(ns).dump(messages.addresses_dump()):
        link = names.get(message["index"], "")
        if link not in links:
            continue
        text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        address = Address(ns, link, f"{text}/{message['prefixlen']}")
        if message["family"] == socket.AF_INET6 and address not in wanted and ip_address(text).is_link_local:
            continue  # the kernel's own: every link with IPv6 has one
        if ns or address in wanted or message.get_attr("IFA_PROTO") == ROUTE_PROTOCOL:
            out.add(address)


def _without_cut_off(kernel: Kernel, ns: str, links: dict[int, Any], out: set[Resource]) -> None:
    """Take addresses out whose connected route somebody deleted: they are of no use. A link that is down has none."""
    up = {link.get_attr("IFLA_IFNAME") for link in links.values() if link["flags"] & _UP}
    suspects = {r for r in out if isinstance(r, Address) and r.ns == ns and r.link in up}
    suspects = {r for r in suspects if _is_connecting(ip_interface(r.interface))}
    if not suspects:
        return
    connected = set()
    for message in kernel.socket_in(ns).dump(messages.routes_dump(messages.ROUTE_OF_KERNEL)):
        link = links.get(message.get_attr("RTA_OIF") or 0)
        if link is not None:
            connected.add((link.get_attr("IFLA_IFNAME"), f"{message.get_attr('RTA_DST')}/{message['dst_len']}"))
    out -= {r for r in suspects if (r.link, str(ip_interface(r.interface).network)) not in connected}


def _is_connecting(interface: IPv4Interface | IPv6Interface) -> bool:
    """Whether a route comes with the address. Link-local ones share the one that every link with IPv6 has."""
    return interface.network.prefixlen < interface.max_prefixlen and not (
        interface.version == 6 and interface.is_link_local
    )


def _observe_routes(kernel: Kernel, ns: str, names: dict[int, str], links: set[str], out: set[Resource]) -> None:
    for message in kernel.socket_in(ns).dump(messages.routes_dump(ROUTE_PROTOCOL)):
        if message["proto"] != ROUTE_PROTOCOL or message.get_attr("RTA_TABLE") != 254:
            continue
        link = names.get(message.get_attr("RTA_OIF") or 0, "")
        if link not in links:
            continue
        destination = message.get_attr("RTA_DST")
        default = "default" if message["family"] == socket.AF_INET else "::/0"
        prefix = f"{destination}/{message['dst_len']}" if destination else default
        out.add(Route(ns, prefix, link, message.get_attr("RTA_GATEWAY") or ""))


def _observe_tables(kernel: Kernel, out: set[Resource]) -> None:
    for family in FAMILIES:
        objects = kernel.nft.list_table(family)
        if objects is None or not is_intact(objects, family):
            continue  # made anew as a whole, with all its elements
        out.add(Table(family))
        out |= read_elements(objects, family)
