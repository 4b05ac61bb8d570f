"""The macvlan driver as a function: from a network and its options to what must exist in the kernel."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from netengine.drivers import EndpointContext, MacvlanDriver
from netengine.errors import Forbidden, Invalid
from netengine.kernel.plan import plan
from netengine.kernel.resources import HOST, Address, LinkUp, Macvlan, Namespace, Resource, Route, Sysctl, Veth, Vlan
from netengine.model import Endpoint, Network

ID = "0123456789ab" + "c" * 52
driver = MacvlanDriver()


def network(opts: dict[str, str] | None = None, others: list[Network] | None = None, **fields: Any) -> Network:
    """A network as the engine completes it."""
    made = Network(**{"id": ID, "name": "mv", "driver": "macvlan", "created": "", "options": opts or {}} | fields)
    driver.settle(made, others or [], 1500)
    return made


def endpoint(**fields: Any) -> Endpoint:
    return Endpoint(
        **{
            "id": "e" * 64,
            "network_id": ID,
            "container_id": "web",
            "sandbox_id": "web",
            "address": "10.0.0.5/24",
            "gateway": "10.0.0.1",
            "mac": "02:00:00:00:00:05",
            "link": "eth0",
        }
        | fields
    )


GATEWAY = EndpointContext(True)
ETH0 = {"parent": "eth0"}
ON_ETH0 = Macvlan("web", "eth0", "eth0", "bridge", "02:00:00:00:00:05")


def rendered(net: Network, context: EndpointContext = GATEWAY, **fields: Any) -> frozenset[Resource]:
    return driver.render_endpoint(net, endpoint(**fields), context)


# ---------------------------------------------------------------------- networks


def test_a_network_on_a_parent_of_the_user_s_makes_nothing() -> None:
    assert driver.render_network(network(ETH0)) == frozenset()


def test_a_vlan_of_a_parent_is_a_link_of_ours_without_ipv6_on_the_host() -> None:
    made = network({"parent": "eth0.50"})
    assert made.parent is not None
    made.parent.trunk, made.parent.vid = "eth0", 50  # as the engine completes it when eth0.50 is not there
    assert driver.render_network(made) == {
        Vlan("eth0.50", "eth0", 50),
        LinkUp(HOST, "eth0.50"),
        Sysctl(HOST, "net/ipv6/conf/eth0.50/disable_ipv6", "1"),
    }


def test_without_a_parent_the_network_is_internal_on_a_wire_that_leads_nowhere() -> None:
    made = network()
    assert made.internal
    resources = driver.render_network(made)
    (wire,) = (r for r in resources if isinstance(r, Veth))
    assert (wire.name, wire.master, wire.ns) == ("dm-0123456789ab", "", ID)
    assert Namespace(ID) in resources, "the far end is alone"
    (link,) = (r for r in rendered(made, EndpointContext(False), gateway="") if isinstance(r, Macvlan))
    assert link.parent == wire.name


# ---------------------------------------------------------------------- endpoints


def test_an_endpoint_is_a_macvlan_with_address_and_way_out() -> None:
    assert rendered(network(ETH0)) == {
        ON_ETH0,
        Address("web", "eth0", "10.0.0.5/24"),
        LinkUp("web", "eth0"),
        Route("web", "default", "eth0", "10.0.0.1"),
    }


def test_without_a_gateway_there_is_no_way_out() -> None:
    assert not any(isinstance(r, Route) for r in rendered(network(ETH0), gateway=""))


def test_a_network_that_is_not_the_gateway_has_no_default_route() -> None:
    assert not any(isinstance(r, Route) for r in rendered(network(ETH0), EndpointContext(False)))


@pytest.mark.parametrize("mode", ["bridge", "private", "vepa"])
def test_the_mode_is_the_link_s(mode: str) -> None:
    assert replace(ON_ETH0, mode=mode) in rendered(network(ETH0 | {"macvlan_mode": mode}))


def test_in_mode_passthru_the_mac_is_the_parent_s() -> None:
    made = network(ETH0 | {"macvlan_mode": "passthru"})
    assert not driver.has_own_mac(made)
    assert replace(ON_ETH0, mode="passthru", mac="") in rendered(made, mac="")


@pytest.mark.parametrize("option", ["mtu", "com.docker.network.driver.mtu"])
def test_an_mtu_is_the_link_s(option: str) -> None:
    assert replace(ON_ETH0, mtu=1400) in rendered(network(ETH0 | {option: "1400"}))


def test_what_is_stacked_on_a_vlan_goes_and_comes_with_it() -> None:
    vlan, other = Vlan("eth0.50", "eth0", 50), Vlan("eth0.50", "eth0", 51)
    above: set[Resource] = {replace(ON_ETH0, parent="eth0.50"), Address("web", "eth0", "10.0.0.5/24"), Namespace("web")}
    steps = plan({other, *above}, {vlan, *above})
    assert steps.delete == (vlan,)
    assert set(steps.create) == {other, *above} - {Namespace("web")}


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        ({"parent": "lo"}, "the loopback interface is not a valid macvlan parent"),
        ({"parent": "a b"}, "'a b'"),
        ({"parent": "eth0/1"}, "no space, '/' or ':'"),
        ({"parent": "e" * 16}, "1 to 15 characters"),
        ({"parent": ".."}, "'..'"),
        ({"macvlan_mode": "source"}, "'source' for macvlan_mode: it must be one of bridge, private, vepa, passthru"),
        ({"ipvlan_mode": "l2"}, "unknown option 'ipvlan_mode' of driver macvlan; known are parent, macvlan_mode"),
        ({"mtu": "67"}, "'67'"),
        ({"mtu": "1e3"}, "'1e3'"),
    ],
)
def test_what_is_wrong_is_refused_with_the_value_and_what_is_allowed(opts: dict[str, str], words: str) -> None:
    with pytest.raises(Invalid) as error:
        network(opts)
    assert words in error.value.message


def test_networks_share_a_parent() -> None:
    first = network(ETH0, id="1" * 64, name="one")
    assert network(ETH0 | {"macvlan_mode": "private"}, [first]).parent is not None


@pytest.mark.parametrize(("mine", "theirs"), [("passthru", "bridge"), ("bridge", "passthru")])
def test_passthru_shares_with_nobody_and_says_with_whom_it_clashes(mine: str, theirs: str) -> None:
    first = network(ETH0 | {"macvlan_mode": theirs}, id="1" * 64, name="one")
    with pytest.raises(Forbidden) as error:
        network(ETH0 | {"macvlan_mode": mine}, [first])
    assert "network one (111111111111) is already using parent interface eth0" in error.value.message


def test_macvlan_and_ipvlan_do_not_share_a_parent() -> None:
    first = network(ETH0, id="1" * 64, name="one")
    first.driver = "ipvlan"
    with pytest.raises(Forbidden) as error:
        network(ETH0, [first])
    assert "network one" in error.value.message
    assert "of driver ipvlan" in error.value.message
