"""From policies to elements: who comes first, which addresses, and what goes with whom."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netengine.engine.policy_rules import ANY, base, named, of_container, of_network, render, segments, traffic
from netengine.engine.state import State
from netengine.kernel.nftables import element_text
from netengine.kernel.resources import HOST, Element, Sysctl, Table
from netengine.kernel.ruleset import POLICY_ENDS
from netengine.kernel.ruleset import container as set_of
from netengine.model import Policy, PolicyEnd, Subnet
from tests.unit.engine.model import container, network, plug, running, state

WEB, DB = PolicyEnd(kind="container", name="web"), PolicyEnd(kind="container", name="db")
APP = PolicyEnd(kind="network", name="app")
_counter = iter(range(1_000_000))


def policy(action: str, source: PolicyEnd = WEB, target: PolicyEnd = DB, protocol: str = "", *ports: int) -> Policy:
    low, high = (ports[0], ports[-1]) if ports else (0, 65535)
    number = next(_counter)
    return Policy(
        id=f"{number:064x}",
        created="",
        action=action,
        source=source,
        target=target,
        protocol=protocol,
        low=low,
        high=high,
    )


def world(*policies: Policy) -> State:
    """web (10.1.0.2) and db (10.1.0.3) on app (10.1.0.0/24)."""
    app, web, db = network("app"), running(container("web")), running(container("db"))
    plug(web, app)
    plug(db, app).address = "10.1.0.3/24"
    made = state(app, web, db)
    made.policies = {p.id: p for p in policies}
    return made


def texts(elements: Any) -> set[str]:
    return {f"{e.container} {element_text(e)}" for e in elements if isinstance(e, Element)}


# ---------------------------------------------------------------------- traffic


def test_all_traffic_is_one_element() -> None:
    assert segments([policy("deny")], "ip") == [("1-255", "0-65535", "drop")]


def test_ports_come_before_their_protocol_and_that_before_everything() -> None:
    said = [policy("deny"), policy("allow", WEB, DB, "tcp"), policy("deny", WEB, DB, "tcp", 22)]
    assert sorted(segments(said, "ip")) == [
        ("1-5", "0-65535", "drop"),
        ("7-255", "0-65535", "drop"),
        ("tcp", "0-21", "accept"),
        ("tcp", "22", "drop"),
        ("tcp", "23-65535", "accept"),
    ]


def test_icmp_has_another_number_in_ipv6() -> None:
    said = [policy("deny", WEB, DB, "icmp")]
    assert (segments(said, "ip"), segments(said, "ip6")) == (
        [("icmp", "0-65535", "drop")],
        [("ipv6-icmp", "0-65535", "drop")],
    )


NUMBERS = {"tcp": 6, "udp": 17, "icmp": 1}


@st.composite
def sayings(draw: st.DrawFn) -> list[Policy]:
    """Policies of one pair, as many as may be beside each other."""
    out = [policy(draw(st.sampled_from(["allow", "deny"])))] if draw(st.booleans()) else []
    for protocol in ("tcp", "udp", "icmp"):
        if draw(st.booleans()):
            out.append(policy(draw(st.sampled_from(["allow", "deny"])), WEB, DB, protocol))
        if protocol != "icmp":
            edges = sorted(draw(st.sets(st.integers(1, 65535), max_size=6)))
            for low, high in zip(edges[::2], edges[1::2], strict=False):
                out.append(policy(draw(st.sampled_from(["allow", "deny"])), WEB, DB, protocol, low, high))
    return out


@given(sayings(), st.sampled_from([1, 2, 6, 17, 200, 255]), st.integers(0, 65535))
def test_every_packet_meets_one_element_and_the_right_one(said: list[Policy], number: int, port: int) -> None:
    def covers(p: Policy) -> bool:
        return (not p.protocol or NUMBERS[p.protocol] == number) and p.low <= port <= p.high

    def rank(p: Policy) -> tuple[bool, bool]:
        return ((p.low, p.high) == (0, 65535), not p.protocol)

    closest = min(filter(covers, said), key=rank, default=None)
    wanted = [{"allow": "accept", "deny": "drop"}[closest.action]] if closest else []
    met = []
    for protocols, ports, verdict in segments(said, "ip"):
        low, _, high = protocols.partition("-")
        first = NUMBERS[low] if low in NUMBERS else int(low)
        last = int(high) if high else first
        start, _, end = ports.partition("-")
        if first <= number <= last and int(start) <= port <= int(end or start):
            met.append(verdict)
    assert met == wanted


# ---------------------------------------------------------------------- ends


@pytest.mark.parametrize(
    ("source", "target", "text"),
    [
        (WEB, DB, "policy-container-container 10.1.0.2/32 . 10.1.0.3/32 . tcp . 80 : drop"),
        (WEB, APP, "policy-container-network 10.1.0.2/32 . 10.1.0.0/24 . tcp . 80 : drop"),
        (APP, DB, "policy-network-container 10.1.0.0/24 . 10.1.0.3/32 . tcp . 80 : drop"),
        (WEB, ANY, "policy-container-any 10.1.0.2/32 . 0.0.0.0/0 . tcp . 80 : drop"),
        (ANY, APP, "policy-any-network 0.0.0.0/0 . 10.1.0.0/24 . tcp . 80 : drop"),
    ],
)
def test_ends_become_their_addresses(source: PolicyEnd, target: PolicyEnd, text: str) -> None:
    assert texts(render(world(policy("deny", source, target, "tcp", 80)), ())) == {text}


def test_both_families() -> None:
    made = world(policy("deny", WEB, APP, "tcp", 80))
    app = made.network_named("app")
    assert app is not None
    app.subnets.append(Subnet(subnet="fd00::/64", gateway="fd00::1"))
    next(iter(made.container("web").endpoints.values())).address6 = "fd00::2/64"
    assert texts(render(made, ())) == {
        "policy-container-network 10.1.0.2/32 . 10.1.0.0/24 . tcp . 80 : drop",
        "policy-container-network fd00::2/128 . fd00::/64 . tcp . 80 : drop",
    }


def test_link_local_addresses_are_no_way_around() -> None:
    made = world(policy("deny", WEB, DB, "udp"))
    next(iter(made.container("db").endpoints.values())).link_local = ["169.254.7.7/16"]
    assert {t.split(" . ")[1] for t in texts(render(made, ()))} == {"10.1.0.3/32", "169.254.7.7/32"}


def test_an_end_that_is_not_there_is_waited_for() -> None:
    gone = PolicyEnd(kind="container", name="gone")
    assert texts(render(world(policy("deny", WEB, gone), policy("deny", gone, ANY)), ())) == set()
    stopped = world(policy("deny"))
    stopped.container("db").endpoints.clear()
    assert texts(render(stopped, ())) == set()


def test_an_element_goes_with_either_of_its_ends() -> None:
    made = world(policy("deny"), policy("allow", WEB, APP, "udp"), policy("deny", ANY, APP))
    web, db, app = made.container("web"), made.container("db"), made.network("app")
    pair, toward, into = (
        {t for t in texts(render(made, ())) if t.startswith(f"policy-{name} ")}
        for name in ("container-container", "container-network", "any-network")
    )
    assert texts(of_container(made, db)) == pair
    assert texts(of_container(made, web)) == pair | toward
    assert texts(of_network(made, app)) == toward | into
    del made.networks[app.id]
    web.endpoints.clear()
    assert texts(of_network(made, app)) == into


def test_without_policies_there_is_nothing() -> None:
    assert render(world(), [Table("ip"), Table("ip6")]) == frozenset()


def test_the_gate_is_open_for_the_families_that_have_a_table() -> None:
    made = world(policy("deny"))
    gate = Element("ip", "policy-gate", ("ip",), ("jump policies",))
    assert base(made, [Table("ip")]) == {gate, Sysctl(HOST, "net/bridge/bridge-nf-call-iptables", "1")}
    assert len(base(made, [Table("ip"), Table("ip6")])) == 4
    assert element_text(gate) == "ip : jump policies"


def test_there_is_a_map_for_any_two_ends() -> None:
    kinds = ("container", "network", "any")
    assert set(POLICY_ENDS) == {(a, b) for a in kinds for b in kinds} - {("any", "any")}
    assert {len(set_of(f"policy-{a}-{b}").key) for a, b in POLICY_ENDS} == {4}


def test_how_policies_are_shown() -> None:
    assert [named(e) for e in (WEB, APP, ANY)] == ["container:web", "network:app", "any"]
    shown = [traffic(policy("deny", WEB, DB, *t)) for t in ((), ("udp",), ("tcp", 80), ("tcp", 80, 90))]
    assert shown == ["all", "udp", "80/tcp", "80-90/tcp"]
