"""The constant part of our nftables tables: every chain, every rule, and the empty sets and maps that they look things up in.

This text is loaded once. Whatever changes at run time is an element of a set or map, so that a packet and an update both cost
the same with one published port as with ten thousand. docs/ruleset.md explains each chain and is generated from the live
kernel by a test.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

TABLE = "netengine"
"""The name of our table in each family. No other table is ever read or written."""

USER_CHAIN = "user-forward"
"""The chain that belongs to the person who runs the machine: jumped to first, never flushed or changed by us."""

VERSION_PREFIX = "version-"

Part = Literal["address", "protocol", "port", "link", "verdict", "ethertype", "prefix"]


@dataclass(frozen=True, slots=True)
class Container:
    """A set, or a map when it has `value` types, of the table. `why` is for the documents."""

    name: str
    key: tuple[Part, ...]
    value: tuple[Part, ...]
    why: str


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
        "strangers",
        ("ethertype",),
        ("verdict",),
        "{ ip : drop } when netengine itself turned ip_forward on: what was not forwarded before is not forwarded now",
    ),
)

_BY_NAME = {c.name: c for c in CONTAINERS}
NAMES = frozenset(_BY_NAME)

_RULES_IP = """
    chain user-forward {
        comment "yours: jumped to before any rule of netengine; never changed by it"
    }

    chain raw-prerouting {
        type filter hook prerouting priority raw; policy accept;
        iifname "lo" accept
        iifname @bridges ip daddr 127.0.0.0/8 counter drop comment "a container may not reach the host's loopback"
        iifname @bridges ip saddr 127.0.0.0/8 counter drop comment "nor pretend to be it"
        iifname @bridges accept
        ip daddr @subnets fib daddr type != local counter drop comment "direct access from outside to a container"
    }

    chain published-ports {
        meta l4proto { tcp, udp, sctp } dnat ip to ip daddr . meta l4proto . th dport map @address-ports
        meta l4proto { tcp, udp, sctp } dnat ip to meta l4proto . th dport map @ports
    }

    chain nat-prerouting {
        type nat hook prerouting priority dstnat; policy accept;
        ip daddr != 127.0.0.0/8 fib daddr type local goto published-ports
    }

    chain nat-output {
        type nat hook output priority -100; policy accept;
        fib daddr type local goto published-ports
    }

    chain nat-postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        oifname . ip saddr @hairpins ct status dnat masquerade comment "the answer must come back through the host"
        ip saddr 127.0.0.0/8 oifname @bridges masquerade comment "a container cannot answer 127.0.0.1"
        iifname @masquerading oifname != @bridges masquerade
    }

    chain filter-forward {
        type filter hook forward priority filter; policy accept;
        jump user-forward
        ct state established,related accept
        iifname . oifname vmap @pairs
        iifname @internal counter drop comment "out of an internal network"
        oifname @internal counter drop comment "into an internal network"
        ct status dnat ip daddr . meta l4proto . th dport @published accept
        oifname @bridges counter drop comment "not published"
        iifname @bridges accept
        meta protocol vmap @strangers
    }
"""

_TYPES: dict[Part, str] = {
    "address": "ipv4_addr",
    "prefix": "ipv4_addr",
    "protocol": "inet_proto",
    "port": "inet_service",
    "link": "ifname",
    "verdict": "verdict",
    "ethertype": "ether_type",
}


def container(name: str) -> Container:
    """The set or map of that name. Raises KeyError."""
    return _BY_NAME[name]


def text(family: Literal["ip", "ip6"]) -> str:
    """The table as nft reads it, with empty sets and maps."""
    if family != "ip":
        raise ValueError("there is no rule set for IPv6 yet")
    lines = [f"table {family} {TABLE} {{"]
    for c in CONTAINERS:
        kind = "map" if c.value else "set"
        types = " . ".join(_TYPES[p] for p in c.key) + (
            " : " + " . ".join(_TYPES[p] for p in c.value) if c.value else ""
        )
        flags = " flags interval;" if "prefix" in c.key else ""
        lines.append(f"    {kind} {c.name} {{ type {types};{flags} }}")
    body = "\n".join(lines) + "\n" + _RULES_IP
    return (
        body
        + f"""
    chain {VERSION_PREFIX}{hashlib.sha256(body.encode()).hexdigest()[:12]} {{
        comment "names the version of these rules; nothing jumps here"
    }}
}}
"""
    )


def version(family: Literal["ip", "ip6"]) -> str:
    """The name of the empty chain that tells this version of the rules from any other."""
    return next(name for name in signature(family)[0] if name.startswith(VERSION_PREFIX))


def signature(family: Literal["ip", "ip6"]) -> tuple[frozenset[str], dict[str, int]]:
    """The names of all chains, sets and maps of the table, and how many rules each chain of ours has."""
    names = {c.name for c in CONTAINERS}
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
