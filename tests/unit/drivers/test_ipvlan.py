"""The ipvlan driver as a function: from a network and its options to what must exist in the kernel."""

from __future__ import annotations

from typing import Any

import pytest

from netengine.drivers import EndpointContext, IpvlanDriver
from netengine.errors import Forbidden, Invalid
from netengine.kernel.resources import Address, Ipvlan, LinkUp, Resource, Route
from netengine.model import Endpoint, Network

driver = IpvlanDriver()


def network(
    mode: str = "",
    flag: str = "",
    others: list[Network] | None = None,
    more: dict[str, str] | None = None,
    **fields: Any,
) -> Network:
    options = {"parent": "eth0", **({"ipvlan_mode": mode} if mode else {}), **({"ipvlan_flag": flag} if flag else {})}
    options |= more or {}
    made = Network(**{"id": "0" * 64, "name": "iv", "driver": "ipvlan", "created": "", "options": options} | fields)
    driver.settle(made, others or [], 1500)
    return made


def rendered(net: Network, gateway: str = "10.0.0.1") -> frozenset[Resource]:
    endpoint = Endpoint(
        id="e" * 64,
        network_id=net.id,
        container_id="web",
        sandbox_id="web",
        address="10.0.0.5/24",
        gateway=gateway,
        link="eth0",
    )
    return driver.render_endpoint(net, endpoint, EndpointContext(True))


def test_an_endpoint_is_an_ipvlan_with_address_and_next_hop() -> None:
    assert rendered(network()) == {
        Ipvlan("web", "eth0", "eth0", "l2", "bridge"),
        Address("web", "eth0", "10.0.0.5/24"),
        LinkUp("web", "eth0"),
        Route("web", "default", "eth0", "10.0.0.1"),
    }


@pytest.mark.parametrize("mode", ["l3", "l3s"])
def test_in_l3_the_link_itself_is_the_way_out(mode: str) -> None:
    made = network(mode)
    assert not driver.has_next_hop(made)
    resources = rendered(made)
    assert Ipvlan("web", "eth0", "eth0", mode, "bridge") in resources
    assert Route("web", "default", "eth0", "") in resources


@pytest.mark.parametrize("flag", ["bridge", "private", "vepa"])
def test_the_flag_is_the_link_s(flag: str) -> None:
    assert Ipvlan("web", "eth0", "eth0", "l2", flag) in rendered(network(flag=flag))


def test_endpoints_have_the_mac_of_the_parent() -> None:
    assert not driver.has_own_mac(network())


def test_networks_of_one_mode_share_a_parent() -> None:
    first = network("l3", id="1" * 64, name="one")
    assert network("l3", others=[first]).parent is not None


@pytest.mark.parametrize(("mode", "flag"), [("l3", "bridge"), ("l2", "private")])
def test_networks_of_two_modes_do_not_and_it_is_said_with_whom_it_clashes(mode: str, flag: str) -> None:
    first = network("l2", id="1" * 64, name="one")
    with pytest.raises(Forbidden) as error:
        network(mode, flag, [first])
    assert "network one (111111111111) is already using parent interface eth0" in error.value.message
    assert "its mode is l2 bridge" in error.value.message


@pytest.mark.parametrize(
    ("mode", "flag", "more", "words"),
    [
        ("l4", "", {}, "'l4' for ipvlan_mode: it must be one of l2, l3, l3s"),
        ("", "passthru", {}, "'passthru' for ipvlan_flag: it must be one of bridge, private, vepa"),
        ("", "", {"macvlan_mode": "bridge"}, "unknown option 'macvlan_mode' of driver ipvlan"),
        ("", "", {"parent": "lo"}, "not a valid ipvlan parent"),
    ],
)
def test_what_is_wrong_is_refused_with_what_is_allowed(mode: str, flag: str, more: dict[str, str], words: str) -> None:
    with pytest.raises(Invalid) as error:
        network(mode, flag, more=more)
    assert words in error.value.message
