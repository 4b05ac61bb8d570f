"""The overlay driver: options in, resources out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from netengine.drivers import EndpointContext, OverlayDriver
from netengine.drivers.overlay import has_ipv6, mac_for, mtu_of, needed_for_ipv6, settings_of
from netengine.drivers.underlay import Peer, Tunnel, Underlay, inner_mtu
from netengine.drivers.wireguard import tunnel_mtu
from netengine.errors import Invalid, Unavailable
from netengine.kernel.resources import (
    Address,
    Bridge,
    Element,
    Fdb,
    Neighbour,
    Resource,
    Route,
    Sysctl,
    Table,
    Veth,
    Vxlan,
)
from netengine.model import Endpoint, Network, Subnet

DRIVER = OverlayDriver()
PREFIX = "com.docker.network.driver"
FOUR, SIX = Underlay("192.0.2.1", 1500), Underlay("2001:db8::1", 1500)
TUNNELLED = Underlay("192.0.2.1", 1500, tunnel=Tunnel("wg0", "fe80::1", 1440))


def network(*subnets: str, **options: str) -> Network:
    made = Network(
        id="0123456789abcdef" * 4,
        name="over",
        driver="overlay",
        created="",
        options={key.replace("__", "."): value for key, value in options.items()},
        enable_ipv6=any(":" in s for s in subnets),
    )
    DRIVER.settle(made, [], 1500)
    made.subnets = [Subnet(subnet=s) for s in subnets or ("10.0.9.0/24",)]
    settings_of(made).vni = settings_of(made).vni or 4096
    return made


def endpoint(**fields: Any) -> Endpoint:
    known = {
        "sandbox_id": "s0",
        "address": "10.0.9.2/24",
        "mac": "02:42:0a:00:09:02",
        "link": "eth0",
        "host_link": "veth0",
    }
    return Endpoint(id="e", network_id="n", container_id="c", **(known | fields))


def one(kind: type, resources: frozenset[Resource]) -> Any:
    (found,) = (r for r in resources if isinstance(r, kind))
    return found


def test_a_host_without_endpoints_has_nothing_of_it() -> None:
    assert DRIVER.render_network(network()) == frozenset()


@pytest.mark.parametrize(
    ("underlay", "mtu"),
    [(FOUR, 1450), (SIX, 1430), (Underlay("192.0.2.1", 9000), 8950), (Underlay("fd00::1", 1280), 1210)],
)
def test_the_mtu_is_what_the_underlay_leaves(underlay: Underlay, mtu: int) -> None:
    made = network()
    rendered = DRIVER.render_network(made, underlay) | DRIVER.render_endpoint(
        made, endpoint(), EndpointContext(False, underlay=underlay)
    )
    assert {one(kind, rendered).mtu for kind in (Bridge, Vxlan, Veth)} == {mtu}
    assert inner_mtu(underlay.mtu, underlay.vtep) == mtu_of(made, underlay) == mtu


def test_an_mtu_that_was_asked_for_is_given() -> None:
    for key in ("mtu", f"{PREFIX}.mtu"):
        made = network(**{key: "1300"})
        assert one(Vxlan, DRIVER.render_network(made, FOUR)).mtu == 1300


def test_a_network_on_a_host() -> None:
    rendered = DRIVER.render_network(network("10.0.9.0/24", "fd00:9::/64"), FOUR)
    assert one(Vxlan, rendered) == Vxlan("vx-0123456789ab", 4096, "192.0.2.1", 4789, "br-0123456789ab", 1450)
    assert not any(isinstance(r, Address) for r in rendered)
    assert Sysctl("", "net/ipv6/conf/br-0123456789ab/disable_ipv6", "1") in rendered
    assert Sysctl("", "net/ipv6/conf/vx-0123456789ab/disable_ipv6", "0") in rendered
    for family in ("ip", "ip6"):
        sets = {r.container for r in rendered if isinstance(r, Element) and r.family == family}
        assert sets == {"bridges", "pairs", "internal"}
    assert {Table("inet"), Element("inet", "sealed", ("br-0123456789ab",))} <= rendered


def test_an_endpoint_has_no_default_route_even_if_it_is_the_gateway() -> None:
    made = network("10.0.9.0/24", "fd00:9::/64")
    given = endpoint(gateway="10.0.9.1", address6="fd00:9::2/64", gateway6="fd00:9::1")
    context = EndpointContext(True, is_gateway6=True, underlay=FOUR)
    assert not any(isinstance(r, Route) for r in DRIVER.render_endpoint(made, given, context))


def test_other_subnets_of_the_network_are_on_the_link() -> None:
    made = network("10.0.9.0/24", "10.0.10.0/24", "fd00:9::/64")
    context = EndpointContext(True, underlay=FOUR)
    rendered = DRIVER.render_endpoint(made, endpoint(), context)
    assert {r for r in rendered if isinstance(r, Route)} == {Route("s0", "10.0.10.0/24", "eth0")}


def test_a_remote_endpoint() -> None:
    made = network("10.0.9.0/24", "fd00:9::/64")
    peer = Peer("02:42:0a:00:09:03", ("10.0.9.3", "fd00:9::3"), "192.0.2.2")
    assert DRIVER.render_peer(made, peer, FOUR) == {
        Fdb("vx-0123456789ab", peer.mac, "192.0.2.2"),
        Neighbour("vx-0123456789ab", "10.0.9.3", peer.mac),
        Neighbour("vx-0123456789ab", "fd00:9::3", peer.mac),
    }


@pytest.mark.parametrize("underlay", [FOUR, SIX, TUNNELLED], ids=["over IPv4", "over IPv6", "encrypted"])
def test_ipv6_is_there_from_the_mtu_on_that_is_named_as_needed(underlay: Underlay) -> None:
    """Below, IPv4 alone: the kernel takes IPv6 off a link with less than 1,280."""
    made = network("10.0.9.0/24", "fd00:9::/64", **({"encrypted": ""} if underlay.tunnel else {}))
    peer = Peer("02:42:0a:00:09:03", ("10.0.9.3", "fd00:9::3"), "192.0.2.2")
    needed = needed_for_ipv6(made, underlay)
    for mtu, has in ((needed, True), (needed - 1, False)):
        tunnel = underlay.tunnel and replace(underlay.tunnel, mtu=tunnel_mtu(underlay.vtep, mtu))
        host = replace(underlay, mtu=mtu, tunnel=tunnel)
        assert has_ipv6(made, host) is has and mtu_of(made, host) == (1280 if has else 1279)
        switch = Sysctl("", "net/ipv6/conf/vx-0123456789ab/disable_ipv6", "0" if has else "1")
        assert switch in DRIVER.render_network(made, host)
        ways = {r.address for r in DRIVER.render_peer(made, peer, host) if isinstance(r, Neighbour)}
        assert ways == ({"10.0.9.3", "fd00:9::3"} if has else {"10.0.9.3"})


def test_an_encrypted_network_goes_through_the_tunnel_and_no_other_way() -> None:
    made = network(encrypted="")
    link = one(Vxlan, DRIVER.render_network(made, TUNNELLED))
    assert (link.local, link.parent, link.mtu) == ("fe80::1", "wg0", 1370)
    entry = one(Fdb, DRIVER.render_peer(made, Peer("02:42:0a:00:09:03", (), "fe80::2"), TUNNELLED))
    assert (entry.remote, entry.via) == ("fe80::2", "wg0")
    with pytest.raises(Unavailable, match="network over is encrypted, and this host has no WireGuard link"):
        DRIVER.render_network(made, FOUR)


@pytest.mark.parametrize(("value", "encrypted"), [("", True), ("true", True), ("1", True), ("false", False)])
def test_encrypted(value: str, encrypted: bool) -> None:
    assert settings_of(network(encrypted=value)).encrypted is encrypted
    assert settings_of(network()).encrypted is False


def test_the_vni_is_the_cluster_s_to_give_unless_it_is_named() -> None:
    made = Network(id="1" * 64, name="n", driver="overlay", created="")
    DRIVER.settle(made, [], 1500)
    assert settings_of(made).vni == 0
    assert settings_of(network(**{f"{PREFIX}.overlay.vxlanid_list": "4711"})).vni == 4711


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("colour", "red", "unknown option 'colour' of driver overlay; known are encrypted, "),
        ("com.docker.network.bridge.name", "br0", "unknown option"),
        ("encrypted", "maybe", "invalid value 'maybe' for encrypted: it must be true or false"),
        (f"{PREFIX}.mtu", "67", "a number of bytes from 68 to 65535"),
        (f"{PREFIX}.overlay.vxlanid_list", "16777216", "a number from 1 to 16777215"),
        (f"{PREFIX}.overlay.vxlanid_list", "0", "a number from 1 to 16777215"),
        (f"{PREFIX}.overlay.vxlanid_list", "4096,4097", "share one VXLAN network identifier; give one"),
    ],
)
def test_what_cannot_be(key: str, value: str, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        network(**{key: value})


def test_ipv6_needs_its_mtu() -> None:
    with pytest.raises(Invalid, match="too small for IPv6"):
        network("fd00:9::/64", mtu="1000")


def test_the_mac_follows_from_the_address() -> None:
    assert mac_for("10.0.9.2") == "02:42:0a:00:09:02"
