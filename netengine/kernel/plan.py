"""The difference between two sets of kernel resources, in an order that the kernel accepts. Pure: no I/O.

create = plan(want, nothing)    delete = plan(nothing, have)    heal = plan(want, observed)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from netengine.kernel.resources import (
    HOST,
    IPV6_MIN_MTU,
    Address,
    Bridge,
    Fdb,
    Ipvlan,
    Key,
    LinkUp,
    Macvlan,
    NameService,
    Namespace,
    Neighbour,
    Resource,
    Route,
    Sysctl,
    TokenBucket,
    Veth,
    Vlan,
    Vxlan,
    WireGuard,
    WireGuardPeer,
    creation_rank,
)


@dataclass(frozen=True, slots=True)
class Change:
    """One object that exists and must become different."""

    old: Resource
    new: Resource


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do: deletions first (dependants before what they depend on), then creations, then changes, which may
    refer to what was created, and then what only a change makes possible: `late`, which is missing, and `again`, which is there
    and goes with the change. `implied` is what the kernel removes by itself along with the deletions."""

    delete: tuple[Resource, ...]
    change: tuple[Change, ...]
    create: tuple[Resource, ...]
    implied: tuple[Resource, ...] = ()
    late: tuple[Resource, ...] = ()
    again: tuple[Resource, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.delete or self.change or self.create or self.late)

    @property
    def missing(self) -> tuple[Resource, ...]:
        """All that is not there and should be."""
        return self.create + self.late


def _order(resource: Resource) -> tuple[int, Key]:
    return (creation_rank(resource), resource.key)


def must_be_remade(old: Resource, new: Resource) -> bool:
    """Whether the kernel cannot turn `old` into `new`: a veth that leads into another namespace, say."""
    if isinstance(old, Veth) and isinstance(new, Veth):
        return (old.ns, old.peer, old.peer_mac) != (new.ns, new.peer, new.peer_mac)
    if isinstance(old, Bridge) and isinstance(new, Bridge):
        return bool(old.mark) and old.mark != new.mark  # another network's, which is gone
    if isinstance(old, Vxlan) and isinstance(new, Vxlan):
        return (old.vni, old.local, old.port, old.parent) != (new.vni, new.local, new.port, new.parent)
    if isinstance(old, WireGuard):
        return not old.public_key  # nobody serves it
    return isinstance(old, Vlan | Macvlan | Ipvlan)


def _goes_with(resource: Resource, namespaces: set[str], links: set[tuple[str, str]]) -> bool:
    """Whether the kernel removes `resource` by itself when those namespaces and links (ns, name) go."""
    match resource:
        case (
            Address(ns=ns, link=link)
            | Route(ns=ns, link=link)
            | LinkUp(ns=ns, link=link)
            | TokenBucket(ns=ns, link=link)
        ):
            return ns in namespaces or (ns, link) in links
        case Fdb(link=link) | Neighbour(link=link) | WireGuardPeer(link=link):
            return (HOST, link) in links
        case Vlan(parent=parent) | Macvlan(parent=parent) | Ipvlan(parent=parent) | Vxlan(parent=parent):
            return (HOST, parent) in links
        case NameService(ns=ns):
            return ns in namespaces
        case Sysctl(ns=ns, path=path):
            return ns in namespaces or any(ns == n and f"/{link}/" in path for n, link in links)
        case _:
            return False


def _ends(resource: Resource) -> set[tuple[str, str]]:
    """The links (ns, name) that a resource is."""
    match resource:
        case Bridge(name=name) | Vlan(name=name) | Vxlan(name=name) | WireGuard(name=name):
            return {(HOST, name)}
        case Veth(name=name, ns=ns, peer=peer):
            return {(HOST, name), (ns, peer)}
        case Macvlan(ns=ns, name=name) | Ipvlan(ns=ns, name=name):
            return {(ns, name)}
    return set()


def revived(change: Change) -> set[tuple[str, str]]:
    """The links (ns, name) that have too small an MTU for IPv6 before a change and not after it. The kernel gives them IPv6
    anew then, with the values that a new link of their namespace has (addrconf_notify, net/ipv6/addrconf.c)."""
    before, after = (getattr(r, "mtu", None) for r in (change.old, change.new))
    if before is None or after is None or not before < IPV6_MIN_MTU <= after:
        return set()
    return _ends(change.new)


def is_ipv6_of(resource: Resource, links: set[tuple[str, str]]) -> bool:
    """Whether a resource is of IPv6, on one of these links (ns, name)."""
    match resource:
        case Address(ns=ns, link=link, interface=what) | Route(ns=ns, link=link, destination=what):
            return (ns, link) in links and ":" in what
        case Neighbour(link=link, address=what):
            return (HOST, link) in links and ":" in what
        case Sysctl(ns=ns, path=path):
            return path.startswith("net/ipv6/") and any(ns == n and f"/{link}/" in path for n, link in links)
    return False


def _stacked_on(links: set[tuple[str, str]], present: Iterable[Resource]) -> list[Resource]:
    """What goes because its parent does: macvlans on a VLAN on a trunk, say."""
    gone = set(links)
    out: list[Resource] = []
    for kind in (Vlan, Macvlan, Ipvlan, Vxlan):  # a VLAN may be a parent itself
        for r in present:
            if isinstance(r, kind) and _goes_with(r, set(), gone):
                out.append(r)
                gone |= _ends(r)
    return out


def stranded(want: Iterable[Resource], links: Mapping[str, bool]) -> frozenset[Resource]:
    """Of `want`, what cannot be while a parent is missing or, for a VLAN, down. `links` are those of the host: whether each is
    up. It can be again when the parent is back."""
    want = list(want)
    there = set(links) | {r.name for r in want if isinstance(r, Bridge | Veth)}
    out: set[Resource] = set()
    for kind in (Vlan, Macvlan, Ipvlan):
        for r in want:
            if isinstance(r, kind) and r.parent not in there:
                out.add(r)
            elif isinstance(r, Vlan) and isinstance(r, kind):
                there.add(r.name)
    gone = {link for r in out for link in _ends(r)}
    down = {r.name for r in want if isinstance(r, Vlan) and not links.get(r.parent, True)}
    out |= {
        r for r in want if _goes_with(r, set(), gone) or (isinstance(r, LinkUp) and r.ns == HOST and r.link in down)
    }
    return frozenset(out)


def plan(want: Iterable[Resource], have: Iterable[Resource]) -> Plan:
    """What turns a kernel that has `have` into one that has `want`.

    Raises ValueError when one set names an object twice with different content: two owners, which is a bug of the caller.
    """
    want, have = frozenset(want), frozenset(have)
    all_wanted, gone = want, have - want
    if not any(isinstance(r, Namespace) or _ends(r) for r in gone):
        # Nothing goes or is made anew that takes others with it: what is in both, a thousand ports say, needs no look.
        want, have = want - have, gone
    wanted = _by_key(want)
    present = _by_key(have)
    delete = [r for key, r in present.items() if key not in wanted]
    create = [r for key, r in wanted.items() if key not in present]
    change = []
    for key, new in wanted.items():
        old = present.get(key)
        if old is None or old == new:
            continue
        if must_be_remade(old, new):
            delete.append(old)
            create.append(new)
        else:
            change.append(Change(old, new))

    namespaces = {r.name for r in delete if isinstance(r, Namespace)}
    links = {link for r in delete for link in _ends(r)}
    links |= {link for r in _stacked_on(links, present.values()) for link in _ends(r)}
    implied = {key: r for key, r in present.items() if _goes_with(r, namespaces, links)}
    # Of what goes with a link that is made anew, all that is still wanted is made again.
    known = {r.key for r in create}
    create += [wanted[key] for key in implied if key in wanted and key not in known]
    change = [c for c in change if c.old.key not in implied]
    late: list[Resource] = []
    again: list[Resource] = []
    if grown := {link for c in change for link in revived(c)}:
        late = [r for r in (*create, *(c.new for c in change)) if is_ipv6_of(r, grown)]
        create = [r for r in create if r not in late]
        change = [c for c in change if c.new not in late]
        # What is there on a link without IPv6 is a switch that says that it has none: it has to be said again.
        again = [r for r in all_wanted if isinstance(r, Sysctl) and r not in late and is_ipv6_of(r, grown)]
    # A sysctl has no "absent": it keeps its last value until its interface or namespace goes.
    delete = [r for r in delete if r.key not in implied and not isinstance(r, Sysctl)]
    return Plan(
        delete=tuple(sorted(delete, key=_order, reverse=True)),
        change=tuple(sorted(change, key=lambda c: _order(c.new))),
        create=tuple(sorted(create, key=_order)),
        implied=tuple(sorted(implied.values(), key=_order)),
        late=tuple(sorted(late, key=_order)),
        again=tuple(sorted(again, key=_order)),
    )


def _by_key(resources: Iterable[Resource]) -> dict[Key, Resource]:
    out: dict[Key, Resource] = {}
    for resource in resources:
        other = out.setdefault(resource.key, resource)
        if other != resource:
            raise ValueError(f"two different resources with one key: {other} and {resource}")
    return out
