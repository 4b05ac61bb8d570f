"""Kernel resources: small frozen values that say what must exist in the kernel.

A driver renders the model to a set of these; `kernel.plan` compares two sets; `kernel.host` makes the kernel equal to one.
Values only: no I/O, no pyroute2, nothing about containers.

Every resource has a `key`, which says *which* object it is; the remaining fields say how it should be. Two resources with one
key and different fields are a change. `ns` is the name of a sandbox namespace, or "" for the namespace of the host, which is
the one the daemon was started in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from netengine.kernel.tunnels import Fdb as Fdb
from netengine.kernel.tunnels import Neighbour as Neighbour
from netengine.kernel.tunnels import Vxlan as Vxlan
from netengine.kernel.tunnels import WireGuard as WireGuard
from netengine.kernel.tunnels import WireGuardPeer as WireGuardPeer

HOST = ""
"""The `ns` of everything that lives in the host's network namespace."""

IPV6_MIN_MTU = 1280
"""Bytes, RFC 8200, section 5: a link with less has no IPv6."""

MARK_GROUP = 0x6E65
"""The link group (IFLA_GROUP) of every link that netengine makes in the host namespace: `ip link show group 28261`."""

GRAVE_GROUP = 0x6E66
"""The link group of links that were taken out of use and wait to be deleted: `ip link show group 28262`."""

ROUTE_PROTOCOL = 110
"""The routing protocol number (rtm_protocol) of every route that netengine adds: `ip route show proto 110`."""

Protocol = Literal["tcp", "udp", "sctp"]
Family = Literal["ip", "ip6"]
TableFamily = Literal["ip", "ip6", "inet", "bridge"]
"""Where a table of rules sees packets: as they are routed, or as they cross a bridge."""
"""nftables' names for IPv4 and IPv6."""
Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HostPort:
    """A port of the host, held by a bound (and, for TCP, listening) socket of the daemon that drops all it receives.

    It makes the kernel say EADDRINUSE to whoever wants the port next, and to us when somebody has it already.
    """

    address: str
    protocol: Protocol
    port: int

    @property
    def key(self) -> Key:
        return ("hostport", self.address, self.protocol, str(self.port))


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace, kept alive by a bind mount of its nsfs file in the run directory. IPv6 starts disabled in it."""

    name: str

    @property
    def key(self) -> Key:
        return ("namespace", self.name)


@dataclass(frozen=True, slots=True)
class NamespaceAlias:
    """A symbolic link /run/netns/`alias` to the file of namespace `ns`, for `ip netns exec` and systemd."""

    alias: str
    ns: str

    @property
    def key(self) -> Key:
        return ("alias", self.alias)


@dataclass(frozen=True, slots=True)
class Bridge:
    """A Linux bridge of ours in the host namespace, up. `mark` is its alternative name (IFLA_ALT_IFNAME): the ownership mark.

    The MAC is set by us: a bridge without one takes the lowest MAC of its ports, and so changes it as ports come and go.
    """

    name: str
    mac: str
    mtu: int
    mark: str
    up: bool = True
    """False only in what is found: somebody took it down."""

    @property
    def key(self) -> Key:
        return ("bridge", self.name)


@dataclass(frozen=True, slots=True)
class Veth:
    """A veth pair: `name` in the host namespace, a port of bridge `master` ("" for none); `peer` inside namespace `ns`.
    The host end is up.

    isolated: IFLA_BRPORT_ISOLATED, ports so marked do not reach each other (but do reach the bridge itself).
    mtu: of both ends; 0, only in what is found: they differ.
    """

    name: str
    master: str
    ns: str
    peer: str
    peer_mac: str
    mtu: int
    isolated: bool = False
    up: bool = True
    """The host end. False only in what is found."""

    @property
    def key(self) -> Key:
        return ("veth", self.name)


@dataclass(frozen=True, slots=True)
class Vlan:
    """An 802.1Q sub-interface of ours in the host namespace: frames of VLAN `vid` (1 to 4094) on the wire of `parent`."""

    name: str
    parent: str
    vid: int

    @property
    def key(self) -> Key:
        return ("vlan", self.name)


@dataclass(frozen=True, slots=True)
class Macvlan:
    """A link with a MAC of its own on the wire of `parent`, a link of the host namespace. Goes when its parent goes.

    `mode` is bridge, private, vepa or passthru. `mac` is "" in mode passthru: there it is the parent's. `mtu` is in bytes, 0
    for the parent's.
    """

    ns: str
    name: str
    parent: str
    mode: str
    mac: str = ""
    mtu: int = 0

    @property
    def key(self) -> Key:
        return ("macvlan", self.ns, self.name)


@dataclass(frozen=True, slots=True)
class Ipvlan:
    """A link that shares the MAC of `parent`, a link of the host namespace, and is told apart by its addresses.

    `mode` (l2, l3, l3s) and `flag` (bridge, private, vepa) are the same for all links of one parent: the kernel keeps them
    there. `mtu` is in bytes, 0 for the parent's.
    """

    ns: str
    name: str
    parent: str
    mode: str
    flag: str
    mtu: int = 0

    @property
    def key(self) -> Key:
        return ("ipvlan", self.ns, self.name)


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """What leaves by a link is no faster than `rate`, in bits per second: a tbf queueing discipline at its root."""

    ns: str
    link: str
    rate: int

    @property
    def key(self) -> Key:
        return ("rate", self.ns, self.link)


@dataclass(frozen=True, slots=True)
class LinkUp:
    """A link is up that has an order to keep: one inside a namespace, or one that is stacked on a parent.

    Apart from the link itself because of the order: an interface that has its address already when it comes up announces it
    by a gratuitous ARP (sysctl arp_notify), so that no neighbour goes on using the MAC of the address's last owner. Where that
    had the same MAC, the address comes after the link (`announces` is false), and nothing is sent: an announcement goes to
    every port of a bridge, and with hundreds of them costs more than all the rest of a connect.
    """

    ns: str
    link: str
    announces: bool = field(default=True, compare=False)
    """How it comes up, not how it is: two that differ in this alone are the same."""

    @property
    def key(self) -> Key:
        return ("up", self.ns, self.link)


@dataclass(frozen=True, slots=True)
class Address:
    """An address on a link, as `address/prefixlen`. IPv6 must be enabled on the link of an IPv6 address."""

    ns: str
    link: str
    interface: str

    @property
    def key(self) -> Key:
        return ("address", self.ns, self.link, self.interface)


@dataclass(frozen=True, slots=True)
class Route:
    """A route in the main table. `destination` is a prefix, or "default" for IPv4; IPv6's default is "::/0". `gateway` is ""
    for a route on the link itself."""

    ns: str
    destination: str
    link: str
    gateway: str = ""

    @property
    def key(self) -> Key:
        return ("route", self.ns, self.destination)


@dataclass(frozen=True, slots=True)
class Sysctl:
    """A value under /proc/sys, by its path there: `net/ipv4/conf/docker0/route_localnet`."""

    ns: str
    path: str
    value: str

    @property
    def key(self) -> Key:
        return ("sysctl", self.ns, self.path)


@dataclass(frozen=True, slots=True)
class NameService:
    """The name server's sockets on 127.0.0.11 inside a namespace, and the rules that lead port 53 to them.

    own_servers: the families of upstream servers that are asked from inside the namespace, from sockets of their own.
    """

    ns: str
    own_servers: tuple[Literal[4, 6], ...] = ()

    @property
    def key(self) -> Key:
        return ("names", self.ns)


@dataclass(frozen=True, slots=True)
class Table:
    """The constant part of our nftables table of one family: chains, rules, empty maps and sets (kernel/ruleset.py)."""

    family: TableFamily

    @property
    def key(self) -> Key:
        return ("table", self.family)


@dataclass(frozen=True, slots=True)
class Element:
    """An element of a set or map in our nftables table. `parts` and `value` are the parts of a concatenation, as text.

    `value` is empty for a set. A verdict is a value like ("accept",).
    """

    family: TableFamily
    container: str
    parts: tuple[str, ...]
    value: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        return ("element", self.family, self.container, *self.parts)

    @property
    def restricts(self) -> bool:
        """Whether it says what somebody on a link may send: there before the link is, and after it. What opens, a published
        port say, is not."""
        return self.family == "bridge" or self.container == "sealed" or self.container.startswith("policy-")


@dataclass(frozen=True, slots=True)
class Relay:
    """A held port of the host on an IPv6 address, served by the relay: what comes there past the rules is carried to a
    container. `target` is an address of either family."""

    address: str
    protocol: Literal["tcp", "udp"]
    port: int
    target: str
    target_port: int

    @property
    def key(self) -> Key:
        return ("relay", self.address, self.protocol, str(self.port))


Resource = (
    HostPort
    | Namespace
    | NamespaceAlias
    | Bridge
    | Veth
    | Vlan
    | Macvlan
    | Ipvlan
    | WireGuard
    | WireGuardPeer
    | Vxlan
    | Fdb
    | Neighbour
    | TokenBucket
    | LinkUp
    | NameService
    | Address
    | Route
    | Sysctl
    | Table
    | Element
    | Relay
)

CREATION_ORDER: tuple[type, ...] = (
    HostPort,
    Namespace,
    Table,
    Bridge,
    Veth,
    Vlan,
    Macvlan,
    Ipvlan,
    WireGuard,
    WireGuardPeer,
    Vxlan,
    TokenBucket,
    Sysctl,
    Fdb,
    Neighbour,
    Address,
    LinkUp,
    Route,
    NameService,
    Element,
    Relay,
    NamespaceAlias,
)
"""What must exist before what, but for elements that restrict: they come right after the tables. Deletion goes the other way
round."""


def creation_rank(resource: Resource) -> int:
    """When it is created among others: the least first."""
    if isinstance(resource, Element) and resource.restricts:
        return _RANKS[Table] + 1
    if isinstance(resource, LinkUp) and not resource.announces:
        return _RANKS[Address] - 1
    return _RANKS[type(resource)]


_RANKS = {kind: 2 * rank for rank, kind in enumerate(CREATION_ORDER)}
