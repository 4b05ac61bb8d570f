"""A kernel for tests that need none: a set of resources that obeys the real one's laws of existence.

It carries out a `Plan` step by step, as `kernel.host` does, and refuses a step that the real kernel would refuse: a veth whose
bridge is not there, an element of a table that is not there, anything that exists already. What belongs to a link or namespace
goes when that goes. Told to, it refuses the n-th step.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import replace

from netengine.kernel.plan import Change, Plan, plan
from netengine.kernel.resources import (
    HOST,
    IPV6_MIN_MTU,
    Address,
    Bridge,
    Element,
    Fdb,
    Ipvlan,
    Key,
    LinkUp,
    Macvlan,
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


class Refused(OSError):
    """The fake kernel says no."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.EPERM, why)


def _orphan(port: Veth | Vxlan) -> Veth | Vxlan:
    """The port after its bridge was deleted: no port of anything, and without the flags of a port."""
    return replace(port, master="", isolated=False) if isinstance(port, Veth) else replace(port, master="")


def _links_of(r: Resource) -> set[tuple[str, str]]:
    if isinstance(r, Veth):
        return {(HOST, r.name), (r.ns, r.peer)}
    return {(HOST, r.name)} if isinstance(r, Bridge | Vxlan | WireGuard) else set()


def _is_ipv6_on(r: Resource) -> set[tuple[str, str]]:
    """The link that a resource of IPv6 is of, if it is one."""
    match r:
        case Address(ns=ns, link=link, interface=what) | Route(ns=ns, link=link, destination=what) if ":" in what:
            return {(ns, link)}
        case Neighbour(link=link, address=what) if ":" in what:
            return {(HOST, link)}
        case Sysctl(ns=ns, path=path) if path.startswith("net/ipv6/"):
            return {(ns, path.split("/")[3])}
    return set()


class FakeKernel:
    """`foreign` are links (ns, name) that are there and belong to somebody else."""

    def __init__(self, have: Iterable[Resource] = (), foreign: Iterable[tuple[str, str]] = ()) -> None:
        self._objects: dict[Key, Resource] = {}
        self._foreign = set(foreign) | {(HOST, "lo"), (HOST, "up0")}
        self._left: int | None = None
        self.log: list[tuple[str, Resource]] = []
        """What was done, in order: (verb, resource)."""
        self.carry_out(plan(have, ()))
        self.log.clear()

    @property
    def has(self) -> set[Resource]:
        """Everything that exists, and can be removed: a sysctl has a value always."""
        return {r for r in self._objects.values() if not isinstance(r, Sysctl)}

    @property
    def sysctls(self) -> set[Resource]:
        return {r for r in self._objects.values() if isinstance(r, Sysctl)}

    def refuse(self, step: int) -> None:
        """Refuse the creation or change that is the `step`-th from now, 0 being the next one."""
        self._left = step

    def apply(self, want: Iterable[Resource], have: Iterable[Resource]) -> Plan:
        """Carry out the difference. Raises Refused half-way: taking back is the business of `kernel.host`."""
        steps = plan(want, have)
        self.carry_out(steps)
        return steps

    def carry_out(self, steps: Plan) -> None:
        for r in steps.delete:
            self.delete(r)
        for r in steps.create:
            self.create(r)
        for change in steps.change:
            self.change(change)
        for r in (*steps.again, *steps.late):
            self.create(r)

    def _count_down(self, r: Resource) -> None:
        if self._left is None:
            return
        if self._left == 0:
            self._left = None
            raise Refused(f"told to refuse {r}")
        self._left -= 1

    def create(self, r: Resource) -> None:
        self._count_down(r)
        if r.key in self._objects and not isinstance(r, Sysctl):
            raise Refused(f"{r} exists")
        self._check_ground(r)
        self._objects[r.key] = r
        self.log.append(("create", r))

    def _check_ground(self, r: Resource) -> None:
        """Refuse what has nothing to stand on."""
        switched_off = isinstance(r, Sysctl) and r.path.endswith("disable_ipv6") and r.value == "1"
        self._need(switched_off or not _is_ipv6_on(r) & self._small(), f"{r}: the link has no IPv6")
        match r:
            case Veth(master=master, ns=ns):
                self._need((HOST, master) in self._links(), f"{r}: no bridge {master}")
                self._need(("namespace", ns) in self._objects, f"{r}: no namespace {ns}")
                self._need((ns, r.peer) not in self._links(), f"{r}: {r.peer} exists in {ns}")
            case Vxlan(name=name, master=master, parent=parent):
                self._need((HOST, master) in self._links(), f"{r}: no bridge {master}")
                self._need(not parent or (HOST, parent) in self._links(), f"{r}: no parent {parent}")
                self._need((HOST, name) not in self._links(), f"{r}: {name} exists")
                taken = [
                    x for x in self._objects.values() if isinstance(x, Vxlan) and (x.vni, x.port) == (r.vni, r.port)
                ]
                self._need(not taken, f"{r}: the VNI is taken by {taken}")
            case WireGuard(name=name):
                self._need((HOST, name) not in self._links(), f"{r}: {name} exists")
            case Fdb(link=link) | Neighbour(link=link) | WireGuardPeer(link=link):
                self._need((HOST, link) in self._links(), f"{r}: no link {link}")
                if isinstance(r, Fdb) and r.via:
                    self._need((HOST, r.via) in self._links(), f"{r}: no link {r.via}")
            case Vlan(name=name, parent=parent):
                self._need((HOST, parent) in self._links(), f"{r}: no parent {parent}")
                self._need((HOST, name) not in self._links(), f"{r}: {name} exists")
            case Macvlan(ns=ns, name=name, parent=parent) | Ipvlan(ns=ns, name=name, parent=parent):
                self._need((HOST, parent) in self._links(), f"{r}: no parent {parent}")
                self._need(ns == HOST or ("namespace", ns) in self._objects, f"{r}: no namespace {ns}")
                self._need((ns, name) not in self._links(), f"{r}: {name} exists in {ns!r}")
            case Address(ns=ns, link=link) | LinkUp(ns=ns, link=link) | TokenBucket(ns=ns, link=link):
                self._need((ns, link) in self._links(), f"{r}: no link {link} in {ns!r}")
            case Route(ns=ns, link=link, gateway=gateway):
                self._need((ns, link) in self._links(), f"{r}: no link {link} in {ns!r}")
                up = ns == HOST or ("up", ns, link) in self._objects
                self._need(up, f"{r}: {link} is down")
                if gateway:
                    reachable = any(isinstance(a, Address) and (a.ns, a.link) == (ns, link) for a in self.has)
                    self._need(reachable, f"{r}: the gateway is not reachable")
            case Sysctl(ns=ns, path=path):
                self._need(ns == HOST or ("namespace", ns) in self._objects, f"{r}: no namespace {ns}")
                parts = path.split("/")
                if parts[2] == "conf" and parts[3] not in ("all", "default"):
                    self._need((ns, parts[3]) in self._links(), f"{r}: no link {parts[3]}")
            case Relay(address=address, protocol=protocol, port=port):
                held = ("hostport", address, protocol, str(port))
                self._need(held in self._objects, f"{r}: nobody holds that port")
            case Element(family=family):
                self._need(("table", family) in self._objects, f"{r}: no table")
            case NamespaceAlias(ns=ns):
                self._need(("namespace", ns) in self._objects, f"{r}: no namespace {ns}")

    @staticmethod
    def _need(condition: bool, otherwise: str) -> None:
        if not condition:
            raise Refused(otherwise)

    def _links(self) -> set[tuple[str, str]]:
        out = set(self._foreign)
        for r in self._objects.values():
            match r:
                case Namespace(name=name):
                    out.add((name, "lo"))
                case Bridge(name=name) | Vlan(name=name) | Vxlan(name=name) | WireGuard(name=name):
                    out.add((HOST, name))
                case Macvlan(ns=ns, name=name) | Ipvlan(ns=ns, name=name):
                    out.add((ns, name))
                case Veth(name=name, ns=ns, peer=peer):
                    out |= {(HOST, name), (ns, peer)}
        return out

    def delete(self, r: Resource) -> None:
        if self._objects.get(r.key) != r:
            raise Refused(f"{r} is not there")
        del self._objects[r.key]
        self.log.append(("delete", r))
        self._sweep(r)

    def _sweep(self, gone: Resource) -> None:
        """Do what the kernel does by itself, once `gone` is gone."""
        for port in [v for v in self._objects.values() if isinstance(v, Veth | Vxlan)]:
            if isinstance(gone, Namespace) and isinstance(port, Veth) and port.ns == gone.name:
                del self._objects[port.key]
            elif isinstance(gone, Bridge) and port.master == gone.name:
                self._objects[port.key] = _orphan(port)
        for kind in (Vlan, Macvlan, Ipvlan, Vxlan):  # what is stacked goes with its parent, and with its namespace
            links = self._links()
            for r in [r for r in self._objects.values() if isinstance(r, kind)]:
                inside = HOST if isinstance(r, Vlan | Vxlan) else r.ns
                lost = (r.parent or isinstance(r, Vlan | Macvlan | Ipvlan)) and (HOST, r.parent) not in links
                if lost or (isinstance(gone, Namespace) and inside == gone.name):
                    del self._objects[r.key]
        links = self._links()
        for key, r in list(self._objects.items()):
            match r:
                case (
                    Address(ns=ns, link=link)
                    | Route(ns=ns, link=link)
                    | LinkUp(ns=ns, link=link)
                    | TokenBucket(ns=ns, link=link)
                ):
                    lost = (ns, link) not in links
                case Fdb(link=link) | Neighbour(link=link) | WireGuardPeer(link=link):
                    lost = (HOST, link) not in links
                case Sysctl(ns=ns, path=path):
                    parts = path.split("/")
                    named = parts[2] == "conf" and parts[3] not in ("all", "default")
                    lost = (ns != HOST and ("namespace", ns) not in self._objects) or (
                        named and (ns, parts[3]) not in links
                    )
                case Element(family=family):
                    lost = isinstance(gone, Table) and gone.family == family
                case _:
                    lost = False
            if lost:
                del self._objects[key]

    def change(self, change: Change) -> None:
        self._count_down(change.new)
        # A change that was refused, or never tried, is taken back as well: what is there may be either, or an orphan.
        present = self._objects.get(change.old.key)
        known = isinstance(present, Veth | Vxlan) or present in (change.old, change.new)
        self._need(known, f"{change.old} is not there")
        self._check_ground_of_change(change)
        self._objects[change.new.key] = change.new
        self._take_ipv6_off(change)
        self.log.append(("change", change.new))

    def _take_ipv6_off(self, change: Change) -> None:
        """A link that gets too small for IPv6 loses it; one that gets large enough has it anew, with nothing that was said."""
        before, after = (getattr(r, "mtu", IPV6_MIN_MTU) for r in (change.old, change.new))
        if (before < IPV6_MIN_MTU) == (after < IPV6_MIN_MTU):
            return
        links = _links_of(change.new)
        for key, r in list(self._objects.items()):
            if not _is_ipv6_on(r) & links:
                continue
            if isinstance(r, Sysctl) and r.path.endswith("disable_ipv6") and after < IPV6_MIN_MTU:
                self._objects[key] = replace(r, value="1")
            else:
                del self._objects[key]

    def _small(self) -> set[tuple[str, str]]:
        """The links that have no IPv6."""
        return {
            link
            for r in self._objects.values()
            if getattr(r, "mtu", IPV6_MIN_MTU) < IPV6_MIN_MTU
            for link in _links_of(r)
        }

    def _check_ground_of_change(self, change: Change) -> None:
        old, new = change.old, change.new
        if isinstance(old, Veth) and isinstance(new, Veth):
            same = (old.ns, old.peer, old.peer_mac) == (new.ns, new.peer, new.peer_mac)
            self._need(same, f"the kernel cannot turn {old} into {new}")
            self._need((HOST, new.master) in self._links(), f"{new}: no bridge {new.master}")
        elif isinstance(old, Vxlan) and isinstance(new, Vxlan):
            same_tunnel = (old.vni, old.local, old.port, old.parent) == (new.vni, new.local, new.port, new.parent)
            self._need(same_tunnel, f"the kernel cannot turn {old} into {new}")
            self._need((HOST, new.master) in self._links(), f"{new}: no bridge {new.master}")
        elif not isinstance(old, WireGuard | Namespace | Table | LinkUp | Address):
            self._check_ground(new)
