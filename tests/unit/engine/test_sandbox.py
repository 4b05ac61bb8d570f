"""A sandbox as a whole: which network is its way out, how its interfaces are numbered, what it is made of."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netengine.engine.sandbox import (
    free_link,
    gateway_network,
    joins,
    needs_names,
    owns_sandbox,
    refuses_ipv6,
    render,
    start_order,
)
from netengine.kernel.plan import plan
from netengine.kernel.resources import (
    Element,
    HostPort,
    LinkUp,
    NameService,
    Namespace,
    NamespaceAlias,
    Route,
    Sysctl,
)
from netengine.model import Attachment, PublishedPort
from tests.unit.engine.model import container, network, plug, running, state

APP, BACK, BRIDGE = network("app"), network("back"), network("bridge", predefined=True)
INNER = network("inner", internal=True)
EVERYTHING = (APP, BACK, BRIDGE, INNER)


# ---------------------------------------------------------------------- the way out


def way_out(*plugs: tuple[Any, dict[str, Any]]) -> str:
    web = container("web")
    for into, options in plugs:
        plug(web, into, **options)
    found = gateway_network(state(*EVERYTHING, web), web)
    return next((n.name for n in EVERYTHING if n.id == found), "")


def test_the_first_by_name_is_the_way_out() -> None:
    assert way_out((BACK, {}), (APP, {})) == "app"
    assert way_out((BRIDGE, {}), (BACK, {})) == "back"


def test_a_higher_priority_wins_over_the_name() -> None:
    assert way_out((APP, {}), (BACK, {"priority": 1})) == "back"
    assert way_out((APP, {"priority": -1}), (BACK, {})) == "back"


def test_an_internal_network_is_never_the_way_out() -> None:
    assert way_out((INNER, {"priority": 9}), (BACK, {})) == "back"
    assert way_out((INNER, {})) == ""


def test_a_network_without_a_gateway_is_never_the_way_out() -> None:
    assert way_out((APP, {"gateway": ""}), (BACK, {})) == "back"


def test_without_networks_there_is_no_way_out() -> None:
    assert way_out() == ""


def ways_out(*plugs: tuple[Any, dict[str, Any]]) -> tuple[str, str]:
    """The networks of the two default routes. `six`: the endpoint has IPv6 as well; `only`: IPv6 alone."""
    web = container("web")
    for into, options in plugs:
        kind = options.pop("family", "4")
        endpoint = plug(web, into, **options)
        if "6" in kind:
            endpoint.address6, endpoint.gateway6 = "fd00::2/64", "fd00::1"
        if kind == "6":
            endpoint.address = endpoint.gateway = ""
    known = state(*EVERYTHING, web)
    names = {n.id: n.name for n in EVERYTHING}
    return names.get(gateway_network(known, web), ""), names.get(gateway_network(known, web, 6), "")


def test_each_family_has_a_way_out_of_its_own() -> None:
    assert ways_out((APP, {}), (BACK, {"family": "6"})) == ("app", "back")
    assert ways_out((APP, {})) == ("app", "")
    assert ways_out((APP, {"family": "6"})) == ("", "app")


def test_a_network_with_both_families_comes_before_one_with_one() -> None:
    assert ways_out((APP, {}), (BACK, {"family": "46"})) == ("back", "back")
    assert ways_out((APP, {"priority": 1}), (BACK, {"family": "46"})) == ("app", "back")
    assert ways_out((APP, {"family": "46"}), (BACK, {"family": "46", "priority": 1})) == ("back", "back")


@pytest.mark.parametrize(
    ("sysctls", "refused"),
    [
        ({}, False),
        ({"net.ipv6.conf.all.disable_ipv6": "1"}, True),
        ({"net.ipv6.conf.all.disable_ipv6": "0"}, False),
        ({"net.ipv6.conf.eth0.disable_ipv6": "1"}, True),
        ({"net.ipv6.conf.eth1.disable_ipv6": "1"}, False),
        ({"net.ipv6.conf.default.disable_ipv6": "1"}, False),
        ({"kernel.msgmax": "1"}, False),
    ],
)
def test_who_switches_ipv6_off(sysctls: dict[str, str], refused: bool) -> None:
    assert refuses_ipv6(container("web", host={"sysctls": sysctls}), "eth0") == refused


def test_what_the_owner_says_of_a_link_comes_before_the_driver() -> None:
    path = "net/ipv6/conf/eth0/accept_ra"
    web = running(container("web", host={"sysctls": {path.replace("/", "."): "2"}}))
    plug(web, APP).address6 = "fd00::2/64"
    assert [r.value for r in render(state(*EVERYTHING, web), web) if isinstance(r, Sysctl) and r.path == path] == ["2"]


# ---------------------------------------------------------------------- interfaces


@given(st.sets(st.integers(0, 20)))
def test_the_lowest_free_number_is_taken(used: set[int]) -> None:
    web = container("web")
    for number in used:
        plug(web, network(f"n{number}"), link=f"eth{number}")
    free = next(n for n in range(22) if n not in used)
    assert free_link(web) == f"eth{free}"


def test_interfaces_are_numbered_default_bridge_first_then_the_network_mode_then_by_name() -> None:
    web = container("web", host={"network_mode": "back"})
    for each in (BACK, APP, BRIDGE, network("zoo")):
        web.attachments[each.id] = Attachment(network_id=each.id)
    known = state(*EVERYTHING, network("zoo"))
    order = [known.networks[n].name for n in start_order(known, web)]
    assert order == ["bridge", "back", "app", "zoo"]


# ---------------------------------------------------------------------- whose sandbox


@pytest.mark.parametrize(
    ("mode", "own", "joined"),
    [("bridge", True, ""), ("none", True, ""), ("app", True, ""), ("host", False, ""), ("container:x", False, "x")],
)
def test_whose_sandbox(mode: str, own: bool, joined: str) -> None:
    made = container("web", host={"network_mode": mode})
    assert (owns_sandbox(made), joins(made)) == (own, joined)


def test_a_name_server_is_for_sandboxes_on_user_defined_networks() -> None:
    on_app, on_bridge, guest = running(container("a")), running(container("b")), running(container("c"))
    plug(on_app, APP)
    plug(on_bridge, BRIDGE)
    guest.host_config.network_mode = "container:a"
    known = state(*EVERYTHING, on_app, on_bridge, guest)
    assert [needs_names(known, c) for c in (on_app, on_bridge, guest)] == [True, False, False]


# ---------------------------------------------------------------------- rendering


def test_a_stopped_container_is_made_of_nothing() -> None:
    assert render(state(), container("web")) == frozenset()


def test_a_sandbox_without_networks_has_a_loopback_and_a_name() -> None:
    web = running(container("web", host={"network_mode": "none"}))
    assert render(state(web), web) == {Namespace(web.id), LinkUp(web.id, "lo"), NamespaceAlias("web", web.id)}


def test_a_joined_sandbox_is_its_owner_s_but_has_the_guest_s_name() -> None:
    guest = running(container("guest", host={"network_mode": "container:owner"}, sandbox_id="owner-sandbox"))
    assert render(state(guest), guest) == {NamespaceAlias("guest", "owner-sandbox")}


def test_network_sysctls_are_set_inside() -> None:
    asked = {"net.ipv4.ip_forward": "1", "kernel.msgmax": "9"}
    web = running(container("web", host={"network_mode": "none", "sysctls": asked}))
    assert [r for r in render(state(web), web) if isinstance(r, Sysctl)] == [Sysctl(web.id, "net/ipv4/ip_forward", "1")]


def test_only_the_way_out_has_the_default_route_and_the_ports() -> None:
    web = running(container("web"))
    plug(web, APP, link="eth0")
    plug(web, BACK, link="eth1")
    web.ports = [PublishedPort(host_ip="0.0.0.0", host_port=8080, container_port=80, protocol="tcp")]
    resources = render(state(*EVERYTHING, web), web)
    assert [r.link for r in resources if isinstance(r, Route)] == ["eth0"]
    assert len([r for r in resources if isinstance(r, HostPort)]) == 1
    assert len([r for r in resources if isinstance(r, Element) and r.container == "ports"]) == 1
    plan(resources, ())  # one owner for each object


def test_servers_of_its_own_are_asked_from_inside() -> None:
    web = running(container("web", host={"dns": ["10.0.0.1"]}))
    plug(web, APP)
    assert NameService(web.id, own_servers=(4,)) in render(state(*EVERYTHING, web), web)
    web.host_config.dns = ["fd00::1", "10.0.0.1", "fd00::2"]
    assert NameService(web.id, own_servers=(4, 6)) in render(state(*EVERYTHING, web), web)
