"""The constant part of our nftables tables: every chain, every rule, and the empty sets and maps that they look things up in.

The tables of IPv4 and IPv6 are made from one text (rules.py): chains, sets and maps have the same names in both, and what
differs is a word or two. It is loaded once. Whatever changes at run time is an element of a set or map, so that a packet and
an update both cost the same with one published port as with ten thousand. docs/ruleset.md explains each chain and is
generated from the live kernel by a test.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from netengine.kernel import rules
from netengine.kernel.resources import TableFamily

TABLE = "netengine"
"""The name of our table in each family. No other table is ever read or written; one of that name may be somebody else's."""

USER_CHAIN = "user-forward"
"""The chain that belongs to the person who runs the machine: jumped to first, never flushed or changed by us."""

VERSION_PREFIX = "version-"

FAMILIES: tuple[TableFamily, ...] = ("ip", "ip6", "inet", "bridge")

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

SEALING: tuple[Container, ...] = (
    Container(
        "sealed",
        ("link",),
        (),
        "bridges of overlay networks: the host is not reached from them, by any of its addresses",
    ),
)
"""The set of the table of family inet. It is there as long as an overlay network is: whoever has none does not pay for it."""

GUARD: tuple[Container, ...] = (
    Container("guarded", ("link",), (), "ports of a bridge whose containers may only speak for themselves"),
    Container("stations", ("link", "mac"), (), "such a port with the MAC address of its container"),
    Container("owners", ("link", "mac", "address"), (), "and with its IPv4 addresses"),
    Container("owners6", ("link", "mac", "address6"), (), "and with its IPv6 addresses"),
    Container("targets", ("link", "target"), (), "such a port with the IPv6 addresses that its container may announce"),
)
"""The sets of the table of family bridge. It is there as long as a network with the option anti_spoof is."""

_BY_NAME = {c.name: c for c in CONTAINERS + SEALING + GUARD}
NAMES = frozenset(_BY_NAME)

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
_ADDRESS_TYPE: Mapping[TableFamily, str] = {
    "ip": "ipv4_addr",
    "ip6": "ipv6_addr",
    "inet": "ipv4_addr",
    "bridge": "ipv4_addr",
}
_KINDS = (
    "chain",
    "set",
    "map",
    "flowtable",
    "counter",
    "quota",
    "limit",
    "ct helper",
    "ct timeout",
    "ct expectation",
    "synproxy",
    "secmark",
)
"""What a table may hold, by libnftables' names."""

HOST_LENGTH: Mapping[TableFamily, int] = {"ip": 32, "ip6": 128, "inet": 32, "bridge": 32}
"""The prefix length of one address."""


def container(name: str) -> Container:
    """The set or map of that name. Raises KeyError."""
    return _BY_NAME[name]


def containers(family: TableFamily) -> tuple[Container, ...]:
    """The sets and maps of the table of that family."""
    return {"bridge": GUARD, "inet": SEALING}.get(family, CONTAINERS)


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
        return rules.BRIDGE
    if family == "inet":
        return rules.INET
    words = rules.WORDS[family]
    pattern = rf"\b({'|'.join(words)})\b( ?)"
    return re.sub(
        pattern,
        lambda m: words[m[1]] and words[m[1]] + m[2],
        rules.ROUTED.replace("POLICIES", _LOOKUPS).replace("PORTS", rules.PORTS),
    )


def version(family: TableFamily) -> str:
    """The name of the empty chain that tells this version of the rules from any other."""
    return next(name for name in signature(family)[0] if name.startswith(VERSION_PREFIX))


def is_ours(objects: Iterable[Mapping[str, Any]], family: TableFamily) -> bool:
    """Whether a listing of a table of our name is of ours, of whichever version and however damaged, and not somebody else's.
    The mark is the chain that names the version. Without it the table is ours if it has half of what ours has; and an
    empty one may be taken."""
    own = [o[kind] for o in objects for kind in _KINDS if kind in o]
    found = {str(each["name"]) for each in own}
    names, _ = signature(family)
    marked = any(re.fullmatch(rf"{VERSION_PREFIX}[0-9a-f]{{12}}", name) for name in found)
    return not own or marked or 2 * len(names & found) >= len(names)


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
