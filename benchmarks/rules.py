"""What our rules cost a packet: on a machine made by hand the rules are exchanged, over and over, while the same packets go.

A packet is a datagram of an established flow, timed in the call that sends it: the kernel carries it to the other end within.
"""

from __future__ import annotations

import contextlib
import socket
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import turns
from benchmarks.bare import NEAR, Bare
from benchmarks.contenders.base import FIRST_PORT
from benchmarks.paths import INSIDE
from netengine.kernel import ruleset
from netengine.kernel.nftables import commands
from netengine.kernel.resources import MARK_GROUP, Element

NOTHING, BY_HAND, OURS = "no rule", "NAT by hand", "netengine's"
TIMES = 10
"""How often a rule is put into a chain, to see what one costs."""
_BATCH = 25

_ELEMENTS = (
    Element("ip", "bridges", ("br0",)),
    Element("ip", "pairs", ("br0", "br0"), ("accept",)),
    Element("ip", "hairpins", ("br0", "10.7.0.0/16")),
    Element("ip", "masquerading", ("br0",)),
    Element("ip", "subnets", ("10.7.0.0/16",)),
    *(Element("ip", "ports", (p, str(FIRST_PORT)), (NEAR, "80")) for p in ("tcp", "udp")),
    *(Element("ip", "published", (NEAR, p, "80")) for p in ("tcp", "udp")),
)
_NAT = f"""
table ip t {{
    map ports {{
        type inet_proto . inet_service : ipv4_addr . inet_service
        elements = {{ tcp . {FIRST_PORT} : {NEAR} . 80, udp . {FIRST_PORT} : {NEAR} . 80 }}
    }}
    chain pre {{
        type nat hook prerouting priority dstnat;
        fib daddr type local dnat ip to meta l4proto . th dport map @ports
    }}
    chain out {{
        type nat hook output priority -100;
        fib daddr type local dnat ip to meta l4proto . th dport map @ports
    }}
    chain post {{
        type nat hook postrouting priority srcnat;
        iifname "br0" oifname != "br0" masquerade
    }}
}}
"""
_CHAIN = """
table ip u {
    set links { type ifname; elements = { "docker0" }; }
    set pairs { type ifname . ifname; elements = { "docker0" . "docker0" }; }
    set prefixes { type ipv4_addr; flags interval; elements = { 172.17.0.0/16, 172.18.0.0/16, 172.19.0.0/16 }; }
    set places { type ifname . ipv4_addr; flags interval; elements = { "docker0" . 172.17.0.0/16 }; }
    map gate { type ether_type : verdict; }
    chain empty { }
    chain forward { type filter hook forward priority filter;
RULES
    }
}
"""
_KINDS = {
    "a comparison of an address": "ip daddr 127.0.0.0/8 accept",
    "of an interface's group": "iifgroup 7 accept",
    "of an interface's kind": 'meta iifkind "none" accept',
    "of what connection tracking says": "ct state related accept",
    "a jump to an empty chain": "jump empty",
    "a look-up of the packet's family": "meta protocol vmap @gate",
    "of a link": "iifname @links accept",
    "of two links": "iifname . oifname @pairs accept",
    "of a prefix, among three": "ip daddr @prefixes accept",
    "of a link and a prefix": "iifname . ip daddr @places accept",
    "a question to the routing table": "fib daddr type local drop",
}
_WITHOUT = ("raw-prerouting", "filter-forward", "nat-strangers", "nat-postrouting")


@dataclass
class Costs:
    """Medians. A packet's are nanoseconds, a connect's microseconds; `port` is from another machine to a published port."""

    packet: dict[str, float] = field(default_factory=dict)
    packet_port: dict[str, float] = field(default_factory=dict)
    connect: dict[str, float] = field(default_factory=dict)
    connect_port: dict[str, float] = field(default_factory=dict)


def _variants(kinds: bool) -> dict[str, str]:
    ours = "\n".join([ruleset.text("ip"), *commands("add", _ELEMENTS)])
    out = {NOTHING: "", BY_HAND: _NAT, OURS: ours}
    for chain in _WITHOUT:
        name = f"ip {ruleset.TABLE} {chain}"
        out[f"without `{chain}`"] = f"{ours}\nflush chain {name}\ndelete chain {name}\n"
    if kinds:
        out["an empty chain"] = _NAT + _CHAIN.replace("RULES", "")
        for kind, rule in _KINDS.items():
            out[kind] = _NAT + _CHAIN.replace("RULES", f"        {rule}\n" * TIMES)
    return out


def measure(rounds: int, batches: int, kinds: bool = True) -> Costs:
    samples: dict[str, dict[str, list[float]]] = {}
    variants = _variants(kinds)
    with tempfile.TemporaryDirectory() as directory:
        bare = Bare(Path(directory))
        try:
            bare.host.ip("link", "set", "br0", "group", str(MARK_GROUP))
            # What nobody reads is thrown away at its end, whatever the rules.
            sink = bare.near.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            sink.bind(("0.0.0.0", 80))
            sink.setblocking(False)
            server = turns.serve(bare.near)
            ways = {
                "": turns.Way(bare.far, (NEAR, 80), server),
                "_port": turns.Way(bare.neighbour, (INSIDE, FIRST_PORT), server),
            }
            for _ in range(rounds):
                for name, text in variants.items():
                    bare.host.run(["nft", "-f", "-"], stdin=f"flush ruleset\n{text}", check=True)
                    for suffix, way in ways.items():
                        if text or not suffix:
                            found = samples.setdefault(name, {})
                            with turns.pinned():
                                found.setdefault(f"packet{suffix}", []).extend(_packets(way, sink, batches))
                            found.setdefault(f"connect{suffix}", []).extend(turns.connects({"": way}, 3)[""])
            sink.close()
            server.close()
        finally:
            bare.close()
    out = Costs()
    for name, by_what in samples.items():
        for what, values in by_what.items():
            getattr(out, what)[name] = statistics.median(values)
    return out


def _packets(way: turns.Way, sink: socket.socket, batches: int) -> list[float]:
    """Nanoseconds of a packet, of each batch. Most are over before anybody else gets the processor."""
    with way.client.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client:
        client.connect(way.to)
        with contextlib.suppress(BlockingIOError):
            while True:  # what the flow before has left there
                sink.recv(16)
        client.send(b"x")
        sink.sendto(b"y", sink.recvfrom(16)[1])  # with the answer the flow is established
        client.recv(16)
        out = []
        for _ in range(batches):
            began = time.perf_counter_ns()
            for _ in range(_BATCH):
                client.send(b"x")
            out.append((time.perf_counter_ns() - began) / _BATCH)
    return out


def table(found: Costs) -> list[str]:
    lines = [
        "| rules | a packet on a bridge, ns | in by a port, ns | a connect on a bridge, µs | by a port, µs |",
        "|---|---|---|---|---|",
    ]
    columns: tuple[tuple[Mapping[str, float], int], ...] = (
        (found.packet, 0), (found.packet_port, 0), (found.connect, 1), (found.connect_port, 1),
    )  # fmt: skip
    for name in found.packet:
        if name in (NOTHING, BY_HAND, OURS) or name.startswith("without"):
            cells = [f"{values[name]:,.{digits}f}" if name in values else "" for values, digits in columns]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    empty = "an empty chain"
    if empty not in found.packet:
        return lines
    hand = statistics.fmean((found.packet[BY_HAND], found.packet_port[BY_HAND]))
    base = statistics.fmean((found.packet[empty], found.packet_port[empty]))
    lines += ["", "| one more | a packet, ns |", "|---|---|", f"| base chain, empty | {base - hand:.0f} |"]
    for kind in _KINDS:
        cost = statistics.fmean((found.packet[kind], found.packet_port[kind])) - base
        lines.append(f"| {kind} | {cost / TIMES:.0f} |")
    return lines
