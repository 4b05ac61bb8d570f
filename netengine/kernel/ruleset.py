"""The constant part of our nftables tables: every chain, every rule, and the empty sets and maps that they look things up in.

The tables of IPv4 and IPv6 are made from one text: chains, sets and maps have the same names in both, and what differs is a
word or two (`_WORDS`). It is loaded once. Whatever changes at run time is an element of a set or map, so that a packet and an
update both cost the same with one published port as with ten thousand. docs/ruleset.md explains each chain and is generated
from the live kernel by a test.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from netengine.kernel.resources import Family, TableFamily

TABLE = "netengine"
"""The name of our table in each family. No other table is ever read or written."""

USER_CHAIN = "user-forward"
"""The chain that belongs to the person who runs the machine: jumped to first, never flushed or changed by us."""

VERSION_PREFIX = "version-"

FAMILIES: tuple[TableFamily, ...] = ("ip", "ip6", "bridge")

Part = Literal[
    "address",
    "prefix",
    "protocol",
    "protocols",
    "port",
    "ports",
    "link",
    "verdict",
    "ethertype",
    "mac",
    "address6",
    "target",
]
"""`address` and `prefix` are of the table's family, and of IPv4 in the bridge's; `target` is an IPv6 address that stands where
nft has no name for it; `prefix`, `protocols` and `ports` may be intervals."""

POLICY_ENDS = (
    ("container", "container"),
    ("container", "network"),
    ("network", "container"),
    ("network", "network"),
    ("container", "any"),
    ("any", "container"),
    ("network", "any"),
    ("any", "network"),
)
"""What a policy may be about, from and to, in the order in which policies are asked: the first that says something decides."""


@dataclass(frozen=True, slots=True)
class Container:
    """A set, or a map when it has `value` types, of the table. `why` is for the documents."""

    name: str
    key: tuple[Part, ...]
    value: tuple[Part, ...]
    why: str


_NOUNS = {"container": "a container", "network": "a network", "any": "anywhere"}

CONTAINERS: tuple[Container, ...] = (
    Container(
        "bridges",
        ("link",),
        (),
        "every bridge of ours: what goes out to one of these is forwarded only if a later rule says so",
    ),
    Container(
        "internal", ("link",), (), "bridges of internal networks: nothing crosses them to or from another interface"
    ),
    Container(
        "sealed",
        ("link",),
        (),
        "bridges of overlay networks: the host is not reached from them, by any of its addresses",
    ),
    Container("masquerading", ("link",), (), "bridges whose packets leave the host under the host's address"),
    Container(
        "sources",
        ("link",),
        ("address",),
        "bridges whose packets leave the host under this address of it, and no other",
    ),
    Container(
        "pairs",
        ("link", "link"),
        ("verdict",),
        "which bridge may forward to which; a bridge paired with itself lets its own containers talk",
    ),
    Container(
        "hairpins",
        ("link", "prefix"),
        (),
        "a bridge with its own subnet: a container reached a neighbour, or itself, through a port of the host",
    ),
    Container("subnets", ("prefix",), (), "subnets of our networks: reached from outside through published ports only"),
    Container(
        "trusted",
        ("link", "prefix"),
        (),
        "an interface of the host with the subnet of a network that trusts it: published ports are reached directly",
    ),
    Container(
        "unprotected", ("link",), (), "bridges into which everything is forwarded (gateway mode nat-unprotected)"
    ),
    Container("routed", ("link",), (), "bridges into which ICMP is forwarded (gateway mode routed)"),
    Container("ports", ("protocol", "port"), ("address", "port"), "ports published on every address of the host"),
    Container(
        "address-ports",
        ("address", "protocol", "port"),
        ("address", "port"),
        "ports published on one address of the host",
    ),
    Container(
        "published", ("address", "protocol", "port"), (), "container addresses and ports that a published port leads to"
    ),
    Container(
        "open",
        ("address", "protocol", "port"),
        (),
        "container addresses and ports that are reached directly (gateway mode routed, or allow-direct-routing)",
    ),
    Container(
        "links",
        ("link", "address", "address", "protocol", "port"),
        (),
        "bridge, linker, target and a port that the target exposes: who may reach whom on a bridge where others may not",
    ),
    Container(
        "policy-gate",
        ("ethertype",),
        ("verdict",),
        "leads to the policies while there are any: without, a packet pays one look-up",
    ),
    *(
        Container(
            f"policy-{source}-{target}",
            ("prefix", "prefix", "protocols", "ports"),
            ("verdict",),
            f"policies from {_NOUNS[source]} to {_NOUNS[target]}: source, target, protocol, port of the target",
        )
        for source, target in POLICY_ENDS
    ),
    Container(
        "strangers",
        ("ethertype",),
        ("verdict",),
        "drop when netengine itself turned forwarding on: what was not forwarded before is not forwarded now",
    ),
)

GUARD: tuple[Container, ...] = (
    Container("guarded", ("link",), (), "ports of a bridge whose containers may only speak for themselves"),
    Container("stations", ("link", "mac"), (), "such a port with the MAC address of its container"),
    Container("owners", ("link", "mac", "address"), (), "and with its IPv4 addresses"),
    Container("owners6", ("link", "mac", "address6"), (), "and with its IPv6 addresses"),
    Container("targets", ("link", "target"), (), "such a port with the IPv6 addresses that its container may announce"),
)
"""The sets of the table of family bridge. It is there as long as a network with the option anti_spoof is."""

_BY_NAME = {c.name: c for c in CONTAINERS + GUARD}
NAMES = frozenset(_BY_NAME)

_RULES = """
    chain user-forward {
        comment "yours: jumped to before any rule of netengine; never changed by it"
    }

    chain raw-prerouting {
        type filter hook prerouting priority raw; policy accept;
        iif "lo" accept
        iifname @bridges goto from-a-network
        IP daddr @subnets fib daddr type != local goto direct-access
    }

    chain from-a-network {
        IP daddr LOOPBACK counter drop comment "a container may not reach the host's loopback"
        IP saddr LOOPBACK counter drop comment "nor pretend to be it"
        iifname @sealed fib daddr type local counter drop comment "the host has no part in an overlay network"
    }

    chain direct-access {
        iifname . IP daddr @trusted accept
        counter drop comment "direct access from outside to a container"
    }

    chain published-ports {
        meta l4proto { tcp, udp, sctp } dnat IP to IP daddr . meta l4proto . th dport map @address-ports
        meta l4proto { tcp, udp, sctp } dnat IP to meta l4proto . th dport map @ports
    }

    chain nat-prerouting {
        type nat hook prerouting priority dstnat; policy accept;
        FROM_OUTSIDE fib daddr type local goto published-ports
    }

    chain nat-output {
        type nat hook output priority -100; policy accept;
        FROM_HERE fib daddr type local goto published-ports
    }

    chain nat-postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        oifname . IP saddr @hairpins ct status dnat masquerade comment "the answer must come back through the host"
        IP saddr LOOPBACK oifname @bridges masquerade comment "a container cannot answer the host's loopback"
        oifname != @bridges snat IP to iifname map @sources
        iifname @masquerading oifname != @bridges masquerade
    }

    chain filter-forward {
        type filter hook forward priority filter; policy accept;
        jump user-forward
        meta protocol vmap @policy-gate
        ct state established,related accept
        iifname . oifname vmap @pairs
        iifname . IP saddr . IP daddr . meta l4proto . th dport @links accept comment "to a container it is linked to"
        iifname . IP daddr . IP saddr . meta l4proto . th sport @links accept comment "and back"
        iifname @internal counter drop comment "out of an internal network"
        oifname @internal counter drop comment "into an internal network"
        ct status dnat IP daddr . meta l4proto . th dport @published accept
        oifname @bridges goto into-a-network
        iifname @bridges accept
        meta protocol vmap @strangers
    }

    chain policies {
        ct state untracked return comment "IPv6 neighbours look for each other; and what you do not track"
        ct direction reply return
POLICIES
    }

    chain into-a-network {
        IP daddr . meta l4proto . th dport @open accept
        oifname @unprotected accept
        meta l4proto ICMP oifname @routed accept
        iifname . IP daddr @trusted IP daddr . meta l4proto . th dport @published accept
        counter drop comment "not published"
    }
"""

# A frame is looked at before the bridge learns from it where a MAC address is. Ethernet types other than these three, tagged
# frames among them, do not pass. An address is probed for with the sender 0.0.0.0 (RFC 5227) or :: (RFC 4862).
_RULES_BRIDGE = """
    chain bridge-prerouting {
        type filter hook prerouting priority -300; policy accept;
        iifname @guarded goto guard
    }

    chain guard {
        iifname . ether saddr != @stations counter drop comment "another's MAC address"
        ether type { 8021q, 8021ad } counter drop comment "a tagged frame"
        iifname . ether saddr . ip saddr @owners accept
        ether type arp goto guard-arp
        ether type ip6 goto guard-ip6
        counter drop comment "another's IPv4 address, or no IP at all"
    }

    chain guard-arp {
        iifname . arp saddr ether . arp saddr ip @owners accept
        arp saddr ip 0.0.0.0 iifname . arp saddr ether @stations accept
        counter drop comment "an ARP message for another"
    }

    chain guard-ip6 {
        icmpv6 type { nd-router-advert, nd-redirect } counter drop comment "no container is a router"
        ip6 saddr :: icmpv6 type { nd-neighbor-solicit, nd-router-solicit, mld2-listener-report } accept
        iifname . ether saddr . ip6 saddr != @owners6 counter drop comment "another's IPv6 address"
        icmpv6 type nd-neighbor-advert iifname . @th,64,128 != @targets counter drop comment "an announcement for another"
        accept
    }
"""

_WORDS: Mapping[Family, Mapping[str, str]] = {
    "ip": {
        "IP": "ip",
        "ICMP": "icmp",
        "LOOPBACK": "127.0.0.0/8",
        "FROM_OUTSIDE": "ip daddr != 127.0.0.0/8",
        "FROM_HERE": "",
    },
    # A packet between link-local addresses is never forwarded, and one from ::1 finds no way back: the kernel has no
    # route_localnet for IPv6. Both reach the socket that holds the port, and so the relay.
    "ip6": {
        "IP": "ip6",
        "ICMP": "ipv6-icmp",
        "LOOPBACK": "::1",
        "FROM_OUTSIDE": "ip6 saddr != fe80::/10",
        "FROM_HERE": "ip6 daddr != ::1 ip6 saddr != fe80::/10",
    },
}
"""What the words in capitals stand for in each family."""

_LOOKUPS = "\n".join(
    f"        IP saddr . IP daddr . meta l4proto . th dport vmap @policy-{source}-{target}"
    for source, target in POLICY_ENDS
)

_TYPES: dict[Part, str] = {
    "mac": "ether_addr",
    "address6": "ipv6_addr",
    "protocol": "inet_proto",
    "protocols": "inet_proto",
    "port": "inet_service",
    "ports": "inet_service",
    "link": "ifname",
    "verdict": "verdict",
    "ethertype": "ether_type",
}
_ADDRESS_TYPE: Mapping[TableFamily, str] = {"ip": "ipv4_addr", "ip6": "ipv6_addr", "bridge": "ipv4_addr"}
HOST_LENGTH: Mapping[TableFamily, int] = {"ip": 32, "ip6": 128, "bridge": 32}
"""The prefix length of one address."""


def container(name: str) -> Container:
    """The set or map of that name. Raises KeyError."""
    return _BY_NAME[name]


def containers(family: TableFamily) -> tuple[Container, ...]:
    """The sets and maps of the table of that family."""
    return GUARD if family == "bridge" else CONTAINERS


def text(family: TableFamily) -> str:
    """The table as nft reads it, with empty sets and maps."""
    lines = [f"table {family} {TABLE} {{"]
    for c in containers(family):
        kind = "map" if c.value else "set"
        if "target" in c.key:
            # A set is of the type of what it is compared with: the target's place in a neighbour advertisement, RFC 4861.
            lines.append(f"    set {c.name} {{ typeof meta iifname . @th,64,128; }}")
            continue
        types = " : ".join(" . ".join(_type(family, p) for p in side) for side in (c.key, c.value) if side)
        flags = " flags interval;" if "prefix" in c.key else ""
        lines.append(f"    {kind} {c.name} {{ type {types};{flags} }}")
    body = "\n".join(lines) + "\n" + _rules(family)
    return (
        body
        + f"""
    chain {VERSION_PREFIX}{hashlib.sha256(body.encode()).hexdigest()[:12]} {{
        comment "names the version of these rules; nothing jumps here"
    }}
}}
"""
    )


def _type(family: TableFamily, part: Part) -> str:
    return _ADDRESS_TYPE[family] if part in ("address", "prefix") else _TYPES[part]


def _rules(family: TableFamily) -> str:
    if family == "bridge":
        return _RULES_BRIDGE
    words = _WORDS[family]
    pattern = rf"\b({'|'.join(words)})\b( ?)"
    return re.sub(pattern, lambda m: words[m[1]] and words[m[1]] + m[2], _RULES.replace("POLICIES", _LOOKUPS))


def version(family: TableFamily) -> str:
    """The name of the empty chain that tells this version of the rules from any other."""
    return next(name for name in signature(family)[0] if name.startswith(VERSION_PREFIX))


def signature(family: TableFamily) -> tuple[frozenset[str], dict[str, int]]:
    """The names of all chains, sets and maps of the table, and how many rules each chain of ours has."""
    names = {c.name for c in containers(family)}
    rules: dict[str, int] = {}
    chain = ""
    for line in text(family).splitlines():
        words = line.split()
        if words[:1] == ["chain"]:
            chain = words[1]
            rules[chain] = 0
        elif chain and words and words[0] not in ("}", "comment", "type"):
            rules[chain] += 1
    return frozenset(names | set(rules)), {name: count for name, count in rules.items() if name != USER_CHAIN}
