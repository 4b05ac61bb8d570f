"""From policies to nftables elements: the addresses that the named ends have now, and the traffic that is meant. Pure.

`of_container` and `of_network` say which elements exist because one of them does, so they come and go in the operation that
brings or takes the addresses. Every element of a pair is rendered by both of its ends. The operations are in policies.py, the
guide is docs/policy.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_interface, ip_network
from itertools import product

from netengine.engine.state import State
from netengine.kernel.resources import HOST, Element, Family, Resource, Sysctl, Table
from netengine.model import Container, Network, Policy, PolicyEnd

ANY = PolicyEnd(kind="any")
_EVERYTHING: Mapping[Family, str] = {"ip": "0.0.0.0/0", "ip6": "::/0"}
_FAMILIES: tuple[Family, ...] = ("ip", "ip6")
VERDICTS = {"allow": "accept", "deny": "drop"}
_NUMBERS = {"icmp": 1, "tcp": 6, "udp": 17, "ipv6-icmp": 58, "sctp": 132}
ALL_PORTS, _FIRST, _LAST = (0, 65535), 1, 255
BRIDGED: Mapping[Family, str] = {
    "ip": "net/bridge/bridge-nf-call-iptables",
    "ip6": "net/bridge/bridge-nf-call-ip6tables",
}
"""With these at 1 (module br_netfilter), what stays within a bridge passes the rules too."""

Pair = tuple[PolicyEnd, PolicyEnd]


def segments(policies: Iterable[Policy], family: Family) -> list[tuple[str, str, str]]:
    """What the policies of one pair say, as disjoint (protocols, ports, verdict): one that names ports comes before one that
    names a protocol, and that before one that names neither."""
    by_protocol: dict[str, list[Policy]] = {}
    for p in policies:
        name = "ipv6-icmp" if p.protocol == "icmp" and family == "ip6" else p.protocol
        by_protocol.setdefault(name, []).append(p)
    rest = next((VERDICTS[p.action] for p in by_protocol.pop("", [])), "")
    out: list[tuple[str, str, str]] = []
    for protocol, named in by_protocol.items():
        base = next((VERDICTS[p.action] for p in named if (p.low, p.high) == ALL_PORTS), rest)
        at = 0
        for p in sorted((p for p in named if (p.low, p.high) != ALL_PORTS), key=lambda p: p.low):
            if base and at < p.low:
                out.append((protocol, _span(at, p.low - 1), base))
            out.append((protocol, _span(p.low, p.high), VERDICTS[p.action]))
            at = p.high + 1
        if base and at <= ALL_PORTS[1]:
            out.append((protocol, _span(at, ALL_PORTS[1]), base))
    if rest:
        taken = sorted(_NUMBERS[name] for name in by_protocol)
        for low, high in zip([_FIRST, *(n + 1 for n in taken)], [*(n - 1 for n in taken), _LAST], strict=True):
            if low <= high:
                out.append((_span(low, high), _span(*ALL_PORTS), rest))
    return out


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}-{high}"


def of_container(state: State, container: Container) -> frozenset[Element]:
    """The elements that exist because the container has its addresses."""
    mine = PolicyEnd(kind="container", name=container.name)
    return frozenset(e for pair, ps in _pairs(state).items() if mine in pair for e in _elements(state, pair, ps))


def of_network(state: State, network: Network) -> frozenset[Element]:
    """The elements that exist because the network has its subnets. It need not be in the state any more."""
    mine = PolicyEnd(kind="network", name=network.name)
    return frozenset(
        e for pair, ps in _pairs(state).items() if mine in pair for e in _elements(state, pair, ps, network)
    )


def elements(state: State, policy: Policy) -> frozenset[Element]:
    """The elements of a policy's pair, those of the pair's other policies among them."""
    pair = (policy.source, policy.target)
    return frozenset(_elements(state, pair, _pairs(state).get(pair, [])))


def base(state: State, tables: Iterable[Resource]) -> frozenset[Resource]:
    """What exists while there is any policy: the way into the chain of policies, and bridges that show it their packets."""
    if not state.policies:
        return frozenset()
    there = {t.family for t in tables if isinstance(t, Table)}
    out: set[Resource] = {Element(f, "policy-gate", (f,), ("jump policies",)) for f in _FAMILIES if f in there}
    return frozenset(out | {Sysctl(HOST, BRIDGED[f], "1") for f in _FAMILIES if f in there})


def render(state: State, tables: Iterable[Resource]) -> frozenset[Resource]:
    """Everything that policies put into the kernel."""
    out = set(base(state, tables))
    for pair, policies in _pairs(state).items():
        out |= set(_elements(state, pair, policies))
    return frozenset(out)


def _pairs(state: State) -> dict[Pair, list[Policy]]:
    out: dict[Pair, list[Policy]] = {}
    for policy in state.policies.values():
        out.setdefault((policy.source, policy.target), []).append(policy)
    return out


def _elements(state: State, pair: Pair, policies: list[Policy], extra: Network | None = None) -> Iterable[Element]:
    source, target = pair
    name = f"policy-{source.kind}-{target.kind}"
    for family in _FAMILIES:
        said = segments(policies, family)
        ends = (_prefixes(state, source, family, extra), _prefixes(state, target, family, extra))
        for (here, there), (protocols, ports, verdict) in product(product(*ends), said):
            yield Element(family, name, (here, there, protocols, ports), (verdict,))


def _prefixes(state: State, end: PolicyEnd, family: Family, extra: Network | None) -> list[str]:
    """Where an end is now. Rules see what crosses bridges, and no macvlan or ipvlan."""
    version = 4 if family == "ip" else 6
    if end.kind == "any":
        return [_EVERYTHING[family]]
    if end.kind == "network":
        network = extra if extra is not None and extra.name == end.name else state.network_named(end.name)
        if network is None or network.bridge is None:
            return []
        return [s.subnet for s in network.subnets if ip_network(s.subnet).version == version]
    container = state.container_named(end.name)
    endpoints = container.endpoints.values() if container else ()
    given = [
        text
        for e in endpoints
        if e.network_id in state.networks and state.networks[e.network_id].bridge is not None
        for text in (e.address, e.address6, *e.link_local)
        if text
    ]
    found = [ip_interface(text).ip for text in given]
    return [f"{ip}/{ip.max_prefixlen}" for ip in found if ip.version == version]


def traffic(policy: Policy) -> str:
    """`5432/tcp`, `udp`, or `all`."""
    if (policy.low, policy.high) == ALL_PORTS:
        return policy.protocol or "all"
    return f"{_span(policy.low, policy.high)}/{policy.protocol}"


def named(end: PolicyEnd) -> str:
    """`container:web`, `network:app` or `any`: the form that is understood without doubt."""
    return end.kind if end == ANY else f"{end.kind}:{end.name}"
