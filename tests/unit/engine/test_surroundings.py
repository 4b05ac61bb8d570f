"""What is said of the host around the networks: room, routes that cross them, the uplink's MTU."""

from __future__ import annotations

import asyncio
import logging
from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any

import pytest

from netengine.engine import surroundings
from netengine.engine.events import Events
from netengine.errors import Forbidden
from netengine.kernel import surroundings as seen
from netengine.kernel import theirs
from netengine.kernel.events import RouteSeen
from netengine.kernel.surroundings import NeighbourTable, Uplink
from tests.unit.engine.model import container, network, plug, state


def core(*things: Any, uplink: Uplink | None = None, table: NeighbourTable | None = None, **fields: Any) -> Any:
    """A core whose kernel answers so."""
    answers = {seen.uplink: uplink, seen.neighbours: table, theirs.host_routes: fields.pop("routes", [])}

    async def on_kernel(function: Any, *_: Any) -> Any:
        return answers[function]

    config = SimpleNamespace(mtu=fields.pop("mtu", 0))
    return SimpleNamespace(state=state(*things), config=config, kernel=None, on_kernel=on_kernel, events=Events())


def ask(question: Any) -> Any:
    return asyncio.run(question)


# ---------------------------------------------------------------------- MTU


@pytest.mark.parametrize(
    ("fields", "mtu"),
    [
        ({"mtu": 1300, "uplink": Uplink("up0", 1400)}, 1300),
        ({"uplink": Uplink("up0", 9000)}, 9000),
        ({}, 1500),
    ],
)
def test_the_mtu_is_the_configuration_s_or_the_uplink_s(fields: Any, mtu: int) -> None:
    assert ask(surroundings.default_mtu(core(**fields))) == mtu


# ---------------------------------------------------------------------- room


def crowded(endpoints: int) -> list[Any]:
    app = network("app")
    crowd = [container(f"c{number}") for number in range(endpoints)]
    for member in crowd:
        plug(member, app)
    return [app, *crowd]


def test_a_bridge_has_1023_ports() -> None:
    things = crowded(1023)
    surroundings.room_on(state(*things[:-1]), things[0])
    with pytest.raises(Forbidden, match="network app has 1023 endpoints, and a Linux bridge has no more ports"):
        surroundings.room_on(state(*things), things[0])


def test_a_full_neighbour_table_is_told_before() -> None:
    things = crowded(600)
    assert ask(surroundings.room_for_neighbours(core(*things[:200], table=NeighbourTable(0, 100)), 1)) == ""
    assert ask(surroundings.room_for_neighbours(core(*things, table=NeighbourTable(0, 4096)), 1)) == ""
    assert ask(surroundings.room_for_neighbours(core(*things), 1)) == ""
    warning = ask(surroundings.room_for_neighbours(core(*things, table=NeighbourTable(0, 1024)), 1))
    table = "the kernel's neighbour table of IPv4, which takes 1024"
    assert warning.startswith(f"601 endpoints need up to 1202 entries of {table}")
    assert "net.ipv4.neigh.default.gc_thresh3=4096" in warning
    assert "IPv6" not in warning


def test_ipv6_has_a_table_of_its_own_and_needs_more_of_it() -> None:
    things = crowded(300)
    for member in things[1:]:
        member.endpoints[things[0].id].address6 = "fd00::2/64"
    warning = ask(surroundings.room_for_neighbours(core(*things, table=NeighbourTable(0, 1024)), 1))
    assert warning.startswith("301 endpoints need up to 1204 entries of the kernel's neighbour table of IPv6")
    assert "net.ipv6.neigh.default.gc_thresh3=4096" in warning


def test_room_is_looked_for_again_when_it_may_be_used_up() -> None:
    full = core(*crowded(600), table=NeighbourTable(0, 1300))
    assert ask(surroundings.room_for_neighbours(full, 1)) == ""
    assert full.state.spare_neighbours[4] == 49
    more = crowded(700)
    full.state.containers |= {c.id: c for c in more[1:]}
    full.state.networks[more[0].id] = more[0]
    warned = [n for n in range(60) if ask(surroundings.room_for_neighbours(full, 1))]
    assert warned == [49]


def test_a_warning_is_given_again_after_a_tenth_more() -> None:
    full = core(*crowded(600), table=NeighbourTable(0, 1024))
    warned = [n for n in range(130) if ask(surroundings.room_for_neighbours(full, 1))]
    assert warned == [0, 61, 122]


# ---------------------------------------------------------------------- routes


@pytest.mark.parametrize(
    ("destination", "words"),
    [
        ("10.1.0.128/25", "packets to 10.1.0.128/25 go there, and not to containers of the network"),
        ("10.0.0.0/8", "from this host 10.1.0.0/24 is the network's containers, and not what the route leads to"),
        ("10.1.0.0/24", "which of the two gets the packets is undecided"),
    ],
)
def test_a_route_into_a_network_is_reported(destination: str, words: str, caplog: pytest.LogCaptureFixture) -> None:
    here = core(network("app"))
    with caplog.at_level(logging.WARNING):
        surroundings.route_seen(here, RouteSeen(destination, 0))
    (record,) = caplog.records
    assert record.message == f"the host's route to {destination} overlaps subnet 10.1.0.0/24 of network app: {words}"


def test_routes_elsewhere_are_nobody_s_business(caplog: pytest.LogCaptureFixture) -> None:
    adopted = network("mine")
    assert adopted.bridge is not None
    adopted.bridge.adopted = True
    with caplog.at_level(logging.WARNING):
        surroundings.route_seen(core(network("app")), RouteSeen("10.2.0.0/16", 0))
        surroundings.route_seen(core(network("app")), RouteSeen("fd00::/8", 0))
        surroundings.route_seen(core(adopted), RouteSeen("10.1.0.0/24", 0))
    assert caplog.records == []


def test_doctor_names_what_crosses_a_network_and_what_is_larger_than_the_uplink() -> None:
    routes = [ip_network("10.1.0.0/16")]
    found = ask(surroundings.findings(core(network("app"), uplink=Uplink("up0", 1400), routes=routes)))
    assert [f.level for f in found] == ["warn", "note"]
    assert found[0].what.startswith("the host's route to 10.1.0.0/16 overlaps subnet 10.1.0.0/24 of network app")
    assert found[1].what == "network app has MTU 1500, the host's uplink up0 1400"
    assert found[1].remedy.endswith("-o com.docker.network.driver.mtu=1400")
