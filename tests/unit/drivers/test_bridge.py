"""The bridge driver as a function: from a network and its options to what must exist in the kernel."""

from __future__ import annotations

from typing import Any

import pytest

from netengine.drivers import BridgeDriver, EndpointContext
from netengine.drivers import bridge as options
from netengine.errors import Forbidden, Invalid
from netengine.kernel.nftables import element_text
from netengine.kernel.plan import plan
from netengine.kernel.resources import (
    HOST,
    Address,
    Bridge,
    Element,
    HostPort,
    LinkUp,
    Resource,
    Route,
    Sysctl,
    Veth,
)
from netengine.model import Endpoint, Network, PublishedPort, Subnet

ID = "0123456789ab" + "c" * 52
LINK = "br-0123456789ab"
driver = BridgeDriver()


def network(opts: dict[str, str] | None = None, others: list[Network] | None = None, **fields: Any) -> Network:
    """A network as the engine completes it: settled, with a subnet and its gateway."""
    made = Network(id=ID, name="app", driver="bridge", created="", options=opts or {}, **fields)
    driver.settle(made, others or [], 1500)
    made.subnets = [Subnet(subnet="172.18.0.0/16", gateway="172.18.0.1")]
    return made


def rendered(opts: dict[str, str] | None = None, **fields: Any) -> frozenset[Resource]:
    return driver.render_network(network(opts, **fields))


def elements(resources: frozenset[Resource], container: str) -> set[tuple[str, ...]]:
    return {r.parts for r in resources if isinstance(r, Element) and r.container == container}


# ---------------------------------------------------------------------- a network


def test_a_network_is_a_bridge_with_the_gateway_s_address() -> None:
    resources = rendered()
    (bridge,) = (r for r in resources if isinstance(r, Bridge))
    assert (bridge.name, bridge.mtu, bridge.mark) == (LINK, 1500, "netengine-br-0123456789ab")
    assert Address(HOST, LINK, "172.18.0.1/16") in resources


def test_its_containers_talk_to_each_other_and_leave_under_the_host_s_address() -> None:
    resources = rendered()
    assert Element("ip", "pairs", (LINK, LINK), ("accept",)) in resources
    assert elements(resources, "bridges") == {(LINK,)}
    assert elements(resources, "masquerading") == {(LINK,)}


def test_it_has_no_ipv6_and_answers_connections_from_the_host_s_loopback() -> None:
    assert {r for r in rendered() if isinstance(r, Sysctl)} == {
        Sysctl(HOST, f"net/ipv6/conf/{LINK}/disable_ipv6", "1"),
        Sysctl(HOST, f"net/ipv4/conf/{LINK}/route_localnet", "1"),
    }


def dual() -> Network:
    made = network(enable_ipv6=True)
    made.subnets.append(Subnet(subnet="fd00:1::/64", gateway="fd00:1::1"))
    return made


def test_with_ipv6_it_has_an_address_more_and_takes_no_router_s_word() -> None:
    resources = driver.render_network(dual())
    assert Address(HOST, LINK, "fd00:1::1/64") in resources
    conf = f"net/ipv6/conf/{LINK}"
    assert {r for r in resources if isinstance(r, Sysctl) and r.path.startswith(conf)} == {
        Sysctl(HOST, f"{conf}/disable_ipv6", "0"),
        Sysctl(HOST, f"{conf}/accept_ra", "0"),
        Sysctl(HOST, f"{conf}/accept_dad", "0"),
    }


def test_an_endpoint_with_ipv6() -> None:
    endpoint = Endpoint(id="e", network_id=ID, container_id="c", sandbox_id="box", link="eth0", host_link="veth0")
    endpoint.address6, endpoint.gateway6, endpoint.mac = "fd00:1::2/64", "fd00:1::1", "02:00:00:00:00:01"
    resources = driver.render_endpoint(dual(), endpoint, EndpointContext(False, is_gateway6=True))
    assert {r for r in resources if isinstance(r, Address | Route)} == {
        Address("box", "eth0", "fd00:1::2/64"),
        Route("box", "::/0", "eth0", "fd00:1::1"),
    }
    assert Sysctl("box", "net/ipv6/conf/eth0/disable_ipv6", "0") in resources
    assert Sysctl("box", "net/ipv6/conf/eth0/accept_ra", "0") in resources
    plan(resources, ())


def test_an_adopted_bridge_keeps_its_ipv6_as_it_is() -> None:
    made = dual()
    assert made.bridge is not None
    made.bridge.adopted = made.bridge.has_address6 = True
    resources = driver.render_network(made)
    assert not any(isinstance(r, Sysctl) and r.path.startswith("net/ipv6") for r in resources)
    assert {r.interface for r in resources if isinstance(r, Address)} == {"172.18.0.1/16"}


def test_ipv6_needs_1280_bytes() -> None:
    with pytest.raises(Invalid, match="an MTU of 1279 is too small for IPv6, which needs 1280 bytes"):
        network({options.MTU: "1279"}, enable_ipv6=True)
    assert network({options.MTU: "1279"}).bridge is not None
    assert network({options.MTU: "1280"}, enable_ipv6=True).bridge is not None


def test_direct_access_from_outside_is_closed() -> None:
    assert elements(rendered(), "subnets") == {("172.18.0.0/16",)}


def test_an_internal_network_leads_nowhere() -> None:
    resources = rendered(internal=True)
    assert elements(resources, "internal") == {(LINK,)}
    assert elements(resources, "masquerading") == set()
    assert not any(isinstance(r, Sysctl) and r.path.endswith("route_localnet") for r in resources)


def test_without_icc_no_pair_may_talk() -> None:
    assert elements(rendered({options.ICC: "false"}), "pairs") == set()


def test_linked_neighbours_of_the_default_bridge_meet_over_the_host_where_ports_are_isolated() -> None:
    arp, delay = f"net/ipv4/conf/{LINK}/proxy_arp_pvlan", f"net/ipv4/neigh/{LINK}/proxy_delay"

    def answers(icc: str, **fields: Any) -> set[tuple[str, str]]:
        resources = rendered({options.ICC: icc}, **fields)
        return {(r.path, r.value) for r in resources if isinstance(r, Sysctl) and r.path in (arp, delay)}

    assert answers("false", predefined=True) == {(arp, "1"), (delay, "0")}
    assert answers("true", predefined=True) == {(arp, "0")}, "taken back when icc is turned on again"
    assert answers("false") == set(), "links are for the default bridge alone"


def test_without_masquerading_packets_keep_their_source() -> None:
    assert elements(rendered({options.MASQUERADE: "false"}), "masquerading") == set()


def test_a_network_is_only_made_of_what_nft_can_be_told() -> None:
    for resource in rendered():
        if isinstance(resource, Element):
            element_text(resource)


def test_two_networks_share_nothing() -> None:
    other = Network(id="f" * 64, name="other", driver="bridge", created="")
    driver.settle(other, [], 1500)
    other.subnets = [Subnet(subnet="172.19.0.0/16", gateway="172.19.0.1")]
    keys = {r.key for r in rendered()} & {r.key for r in driver.render_network(other)}
    assert keys == set()


def test_an_adopted_bridge_is_used_and_left_as_it_is() -> None:
    adopted = network({options.NAME: "mine"})
    assert adopted.bridge is not None
    adopted.bridge.adopted = True
    resources = driver.render_network(adopted)
    assert not any(isinstance(r, Bridge) for r in resources)
    assert not any(isinstance(r, Sysctl) and "disable_ipv6" in r.path for r in resources)
    assert Address(HOST, "mine", "172.18.0.1/16") in resources


def test_an_address_that_an_adopted_bridge_has_already_is_not_ours() -> None:
    adopted = network({options.NAME: "mine"})
    assert adopted.bridge is not None
    adopted.bridge.adopted = adopted.bridge.has_address = True
    assert not any(isinstance(r, Address) for r in driver.render_network(adopted))


# ---------------------------------------------------------------------- options


def settled(opts: dict[str, str]) -> Any:
    return network(opts).bridge


def test_the_options_of_the_bridge() -> None:
    assert settled({options.NAME: "app0"}).link == "app0"
    assert settled({options.MTU: "1400"}).mtu == 1400
    assert settled({"mtu": "1400"}).mtu == 1400, "the short form"
    assert settled({options.HOST_BINDING: "127.0.0.1"}).host_binding == "127.0.0.1"
    assert settled({}).mtu == 1500, "the daemon's default"


@pytest.mark.parametrize("text", ["true", "True", "TRUE", "t", "T", "1"])
def test_what_go_reads_as_true(text: str) -> None:
    assert settled({options.ICC: text}).icc is True


@pytest.mark.parametrize("text", ["false", "False", "FALSE", "f", "F", "0"])
def test_what_go_reads_as_false(text: str) -> None:
    assert settled({options.ICC: text}).icc is False


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        ({options.ICC: "yes"}, "invalid value 'yes' for com.docker.network.bridge.enable_icc"),
        ({options.ICC: ""}, "must be true or false"),
        ({options.MASQUERADE: "2"}, "invalid value '2'"),
        ({options.MTU: "67"}, "from 68 to 65535"),
        ({options.MTU: "65536"}, "from 68 to 65535"),
        ({options.MTU: "-1"}, "from 68 to 65535"),
        ({options.MTU: "١٥٠٠"}, "from 68 to 65535"),
        ({options.NAME: "a" * 16}, "1 to 15 letters"),
        ({options.NAME: "a/b"}, "1 to 15 letters"),
        ({options.NAME: "../../x"}, "1 to 15 letters"),
        ({options.NAME: "-x"}, "1 to 15 letters"),
        ({options.NAME: "x\n"}, "1 to 15 letters"),
        ({options.HOST_BINDING: "localhost"}, "must be an IPv4 address"),
        ({options.HOST_BINDING: "::1"}, "must be an IPv4 address"),
        ({"com.docker.network.bridge.enable_icq": "1"}, "unknown option 'com.docker.network.bridge.enable_icq'"),
    ],
)
def test_an_option_that_cannot_be_is_refused_with_its_value(opts: dict[str, str], words: str) -> None:
    with pytest.raises(Invalid) as refused:
        network(opts)
    assert words in refused.value.message


def test_two_networks_cannot_have_one_bridge() -> None:
    first = network({options.NAME: "app0"})
    second = Network(id="f" * 64, name="second", driver="bridge", created="", options={options.NAME: "app0"})
    with pytest.raises(Forbidden) as refused:
        driver.settle(second, [first], 1500)
    assert refused.value.message == (
        f"cannot create network {'f' * 64} (app0): conflicts with network {ID} (app): same bridge name"
    )


def test_a_network_keeps_its_mac_for_life() -> None:
    first, again = settled({}).mac, settled({options.NAME: "other"}).mac
    assert first == again
    octet = int(first[:2], 16)
    assert octet & 0x01 == 0, "multicast"
    assert octet & 0x02, "not locally administered"


# ---------------------------------------------------------------------- an endpoint

ENDPOINT = Endpoint(
    id="e" * 64,
    network_id=ID,
    container_id="c",
    sandbox_id="sandbox",
    address="172.18.0.2/16",
    gateway="172.18.0.1",
    mac="02:42:ac:12:00:02",
    link="eth0",
    host_link="vetheeeeeee",
)
ROUTE = Route("sandbox", "default", "eth0", "172.18.0.1")


def endpoint(*ports: PublishedPort, is_gateway: bool = True, opts: dict[str, str] | None = None) -> frozenset[Resource]:
    return driver.render_endpoint(network(opts), ENDPOINT, EndpointContext(is_gateway, ports))


def port(host_ip: str = "0.0.0.0", protocol: str = "tcp") -> PublishedPort:
    return PublishedPort(host_ip=host_ip, host_port=8080, container_port=80, protocol=protocol)


def test_an_endpoint_is_a_cable_an_address_and_the_way_out() -> None:
    assert endpoint() == {
        Veth("vetheeeeeee", LINK, "sandbox", "eth0", "02:42:ac:12:00:02", 1500, isolated=False),
        Address("sandbox", "eth0", "172.18.0.2/16"),
        LinkUp("sandbox", "eth0"),
        ROUTE,
    }


def test_only_the_gateway_endpoint_has_the_default_route() -> None:
    assert ROUTE not in endpoint(is_gateway=False)


def test_an_endpoint_without_a_gateway_has_no_route() -> None:
    made = network(internal=True)
    inside = Endpoint(**{f: getattr(ENDPOINT, f) for f in ENDPOINT.__struct_fields__} | {"gateway": ""})
    assert not any(isinstance(r, Route) for r in driver.render_endpoint(made, inside, EndpointContext(True)))


def test_without_icc_the_port_is_isolated() -> None:
    (veth,) = (r for r in endpoint(opts={options.ICC: "0"}) if isinstance(r, Veth))
    assert veth.isolated


def test_the_mtu_is_that_of_the_network() -> None:
    (veth,) = (r for r in endpoint(opts={options.MTU: "1400"}) if isinstance(r, Veth))
    assert veth.mtu == 1400


def test_a_port_published_everywhere_is_one_element_of_the_small_map() -> None:
    assert endpoint(port()) - endpoint() == {
        HostPort("0.0.0.0", "tcp", 8080),
        Element("ip", "ports", ("tcp", "8080"), ("172.18.0.2", "80")),
        Element("ip", "published", ("172.18.0.2", "tcp", "80")),
    }


def test_a_port_published_on_one_address_is_keyed_by_it() -> None:
    assert endpoint(port("127.0.0.1", "udp")) - endpoint() == {
        HostPort("127.0.0.1", "udp", 8080),
        Element("ip", "address-ports", ("127.0.0.1", "udp", "8080"), ("172.18.0.2", "80")),
        Element("ip", "published", ("172.18.0.2", "udp", "80")),
    }


def test_one_container_port_published_twice_is_accepted_once() -> None:
    resources = endpoint(port("127.0.0.1"), port("192.0.2.1"))
    assert len(elements(resources, "address-ports")) == 2
    assert elements(resources, "published") == {("172.18.0.2", "tcp", "80")}


def test_network_and_endpoint_together_have_one_owner_for_each_object() -> None:
    plan(rendered() | endpoint(port()), ())  # raises on two contents for one key


def test_an_unsettled_network_is_a_bug_of_the_caller() -> None:
    with pytest.raises(TypeError, match="not settled"):
        driver.render_network(Network(id=ID, name="app", driver="bridge", created=""))
