"""A bridge network as elements of the rules: by mode, by family, port by port."""

from __future__ import annotations

from typing import Any

import pytest

from netengine.drivers.base import EndpointContext
from netengine.drivers.bridge_rules import network_elements, port_resources
from netengine.kernel.nftables import element_text
from netengine.kernel.resources import Element, HostPort, Relay, Resource
from netengine.model import BridgeSettings, Endpoint, Network, PublishedPort, Subnet

FOUR, SIX = "172.18.0.0/16", "fd00:1::/64"


def settings(**fields: Any) -> BridgeSettings:
    return BridgeSettings(link="br0", mac="02:00:00:00:00:01", mtu=1500, **fields)


def elements(given: BridgeSettings, *subnets: str, internal: bool = False) -> set[tuple[str, str]]:
    """(family, set or map) of what is rendered; all of it must be text that nft takes."""
    network = Network(id="1" * 64, name="app", driver="bridge", created="", internal=internal, bridge=given)
    network.subnets = [Subnet(subnet=s) for s in subnets]
    rendered = network_elements(network, given)
    for r in rendered:
        assert isinstance(r, Element)
        element_text(r)
    return {(r.family, r.container) for r in rendered if isinstance(r, Element)}


@pytest.mark.parametrize("family", ["ip", "ip6"])
@pytest.mark.parametrize(
    ("fields", "internal", "expected"),
    [
        ({}, False, {"bridges", "hairpins", "pairs", "masquerading", "subnets"}),
        ({"icc": False}, False, {"bridges", "hairpins", "masquerading", "subnets"}),
        ({"masquerade": False}, False, {"bridges", "hairpins", "pairs"}),
        ({"direct": True}, False, {"bridges", "hairpins", "pairs", "masquerading"}),
        ({"trusted": ["wg0"]}, False, {"bridges", "hairpins", "pairs", "masquerading", "subnets", "trusted"}),
        ({"mode": "routed", "trusted": ["wg0"]}, False, {"bridges", "hairpins", "pairs", "routed"}),
        ({"mode": "nat-unprotected"}, False, {"bridges", "hairpins", "pairs", "masquerading", "unprotected"}),
        ({"sources": True}, False, {"bridges", "hairpins", "pairs", "sources", "subnets"}),
        ({}, True, {"bridges", "hairpins", "pairs", "internal", "subnets"}),
        ({"mode": "isolated"}, True, {"bridges", "hairpins", "pairs", "internal", "subnets"}),
        ({"mode": "routed"}, True, {"bridges", "hairpins", "pairs", "internal", "subnets"}),
    ],
    # In order: the processes of one run must agree on what a test is called.
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
def test_a_network(family: str, fields: dict[str, Any], internal: bool, expected: set[str]) -> None:
    given = dict(fields)
    if "mode" in given:
        given["gateway_modes"] = {family: given.pop("mode")}
    if "sources" in given:
        given["sources"] = {family: "192.0.2.1" if family == "ip" else "2001:db8::1"}
    assert elements(settings(**given), FOUR if family == "ip" else SIX, internal=internal) == {
        (family, name) for name in expected
    }


def test_each_family_goes_its_own_way() -> None:
    found = elements(settings(gateway_modes={"ip6": "routed"}), FOUR, SIX)
    assert ("ip", "masquerading") in found and ("ip6", "masquerading") not in found
    assert ("ip6", "routed") in found and ("ip", "routed") not in found


def test_a_family_without_a_subnet_is_left_alone() -> None:
    assert {family for family, _ in elements(settings(), FOUR)} == {"ip"}


# ---------------------------------------------------------------------- ports

ENDPOINT = Endpoint(
    id="e" * 64, network_id="n", container_id="c", sandbox_id="c", address="172.18.0.2/16", address6="fd00:1::2/64"
)
FOUR_ONLY = Endpoint(id="e" * 64, network_id="n", container_id="c", sandbox_id="c", address="172.18.0.2/16")


def port(host_ip: str, protocol: str = "tcp", host_port: int = 8080) -> PublishedPort:
    return PublishedPort(host_ip=host_ip, host_port=host_port, container_port=80, protocol=protocol)


def ports(
    *published: PublishedPort, endpoint: Endpoint = ENDPOINT, given: BridgeSettings | None = None, **context: bool
) -> set[Resource]:
    where = {
        "is_gateway": True,
        "is_gateway6": bool(endpoint.address6),
        "relays_ipv6": not endpoint.address6,
        **context,
    }
    return port_resources(given or settings(), endpoint, EndpointContext(ports=published, **where))


def test_each_family_is_translated_to_its_own_address_and_the_rest_is_relayed() -> None:
    assert ports(port("0.0.0.0"), port("::")) == {
        HostPort("0.0.0.0", "tcp", 8080),
        HostPort("::", "tcp", 8080),
        Element("ip", "ports", ("tcp", "8080"), ("172.18.0.2", "80")),
        Element("ip6", "ports", ("tcp", "8080"), ("fd00:1::2", "80")),
        Element("ip", "published", ("172.18.0.2", "tcp", "80")),
        Element("ip6", "published", ("fd00:1::2", "tcp", "80")),
        Relay("::", "tcp", 8080, "fd00:1::2", 80),
    }


def test_to_a_container_without_ipv6_all_of_it_is_relayed() -> None:
    assert ports(port("::1"), endpoint=FOUR_ONLY) == {
        HostPort("::1", "tcp", 8080),
        Relay("::1", "tcp", 8080, "172.18.0.2", 80),
    }


def test_sctp_is_never_relayed() -> None:
    assert not any(isinstance(r, Relay) for r in ports(port("::", "sctp")))


def test_a_port_on_one_address() -> None:
    assert Element("ip6", "address-ports", ("2001:db8::1", "tcp", "8080"), ("fd00:1::2", "80")) in ports(
        port("2001:db8::1")
    )


def test_only_the_way_out_of_a_family_has_its_ports() -> None:
    assert {
        r for r in ports(port("0.0.0.0"), port("::"), is_gateway=False) if getattr(r, "family", "ip6") == "ip"
    } == set()
    assert ports(port("0.0.0.0"), port("::"), is_gateway=False, is_gateway6=False) == set()


def test_a_routed_network_opens_whichever_the_way_out_is_and_holds_nothing() -> None:
    routed = settings(gateway_modes={"ip": "routed", "ip6": "routed"})
    for is_way_out in (True, False):
        for published in (port("0.0.0.0"), port("0.0.0.0", host_port=0)):
            assert ports(published, given=routed, is_gateway=is_way_out, is_gateway6=is_way_out) == {
                Element("ip", "open", ("172.18.0.2", "tcp", "80")),
                Element("ip6", "open", ("fd00:1::2", "tcp", "80")),
            }


def test_direct_access_opens_what_is_published_in_that_family() -> None:
    found = ports(port("0.0.0.0"), given=settings(direct=True))
    assert Element("ip", "open", ("172.18.0.2", "tcp", "80")) in found
    assert not any(isinstance(r, Element) and r.family == "ip6" for r in found)
