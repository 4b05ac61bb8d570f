"""Which subnets a new network gets, of which families; and that two networks never share one, whatever comes and goes."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from netengine.addressvalues import AddressPool
from netengine.config import Config
from netengine.engine import subnets
from netengine.engine.addresses import Addresses
from netengine.engine.requests import ConfigReference, NetworkRequest
from netengine.errors import Forbidden, Invalid, NetengineError, Unavailable
from netengine.ipam import check_ipam_config, ula_pool
from netengine.ipam.rules import IpamEntry
from netengine.model import Network
from tests.unit.engine.model import network

POOLS = subnets.pools_of(Config(), "a host")
ULA = ula_pool("a host").base


def new(*asked: str, others: list[Network] | None = None, routes: tuple[str, ...] = (), **fields: Any) -> Any:
    made = network("new", **{"enable_ipv6": True, **fields})
    configs = check_ipam_config([IpamEntry(text) for text in asked])
    known = [ip_network(route) for route in routes]
    return subnets.choose(made, configs, pools=POOLS, others=others or [], routes=known)


def chosen(*asked: str, **fields: Any) -> list[str]:
    return [s.subnet for s in new(*asked, **fields)[0]]


def test_a_family_without_a_subnet_gets_one_from_the_pools_ipv4_first() -> None:
    assert chosen() == ["172.17.0.0/16", str(next(ULA.subnets(new_prefix=64)))]
    assert chosen("fd00:5::/64") == ["172.17.0.0/16", "fd00:5::/64"]
    assert chosen("fd00:5::/64", "10.0.0.0/24") == ["10.0.0.0/24", "fd00:5::/64"]
    assert chosen(enable_ipv6=False) == ["172.17.0.0/16"]
    assert chosen("::/64", enable_ipv4=False)[0].startswith("fd")


def test_subnets_of_others_and_routes_of_the_host_are_passed_over() -> None:
    first, second = (str(s) for s, _ in zip(ULA.subnets(new_prefix=64), range(2), strict=False))
    other = network("other")
    other.subnets = new()[0]
    assert chosen(enable_ipv4=False, others=[other]) == [second]
    assert chosen(enable_ipv4=False, routes=(first,)) == [second]
    with pytest.raises(Forbidden, match="Pool overlaps"):
        chosen(first, others=[other])


def test_what_the_user_should_know() -> None:
    assert new("fd00:5::/64", enable_ipv6=False)[1] == [
        "subnet fd00:5::/64 is not used: the network has no IPv6 (--ipv6)"
    ]
    (words,) = new("fd00:5::/64", routes=("fd00:5:0:0:9::/80",))[1]
    assert words == "subnet fd00:5::/64 overlaps the host's route to fd00:5:0:0:9::/80, which it may hide"


def test_a_bridge_takes_one_subnet_of_each_family() -> None:
    with pytest.raises(Forbidden, match="doesn't support multiple subnets"):
        chosen("fd00:5::/64", "fd00:6::/64")


@pytest.mark.parametrize(
    ("flags", "options", "families", "left"),
    [
        ((None, None), {}, (True, False), {}),
        ((None, True), {}, (True, True), {}),
        ((False, True), {}, (False, True), {}),
        ((None, None), {subnets.ENABLE_IPV6: "1"}, (True, True), {subnets.ENABLE_IPV6: "1"}),
        ((None, False), {subnets.ENABLE_IPV6: "true"}, (True, False), {}),
    ],
)
def test_families(
    flags: tuple[bool | None, bool | None], options: dict[str, str], families: tuple[bool, bool], left: dict[str, str]
) -> None:
    made = network("new", options=dict(options))
    subnets.families(made, *flags)
    assert ((made.enable_ipv4, made.enable_ipv6), made.options) == (families, left)


def test_a_network_of_no_family() -> None:
    with pytest.raises(Invalid, match="IPv4 or IPv6 must be enabled"):
        subnets.families(network("new"), False, None)
    with pytest.raises(Invalid, match="it must be true or false"):
        subnets.families(network("new", options={subnets.ENABLE_IPV6: "on"}), None, None)


def test_configured_pools_stand_for_their_family_alone() -> None:
    mine = AddressPool(IPv6Network("fd00:19::/48"), 64)
    pools = subnets.pools_of(Config(default_address_pools=(mine,)), "a host")
    assert [p.base for p in pools if p.base.version == 6] == [mine.base]
    assert pools[1].base == IPv4Network("172.17.0.0/16")
    four = AddressPool(IPv4Network("10.0.0.0/8"), 24)
    assert [p.base for p in subnets.pools_of(Config(default_address_pools=(four,)), "a host")] == [four.base, ULA]


def test_options_that_new_networks_have_by_default() -> None:
    config = Config(default_network_opts={"bridge": {"a": "1", "b": "1"}, "macvlan": {"c": "1"}})
    assert subnets.default_options(config, NetworkRequest(options={"a": "2"})) == {"a": "2", "b": "1"}
    made_from = NetworkRequest(options={"a": "2"}, config_from=ConfigReference(network="template"))
    assert subnets.default_options(config, made_from) == {"a": "2"}


class LeaseLaws(RuleBasedStateMachine):
    """Networks and endpoints of both families come and go: no address has two owners, and none is lost."""

    SIZES = ("10.9.{0}.0/29", "fd00:9:{0}::/125", "fd00:9:{0}::/127", "::/126", "")

    def __init__(self) -> None:
        super().__init__()
        self.addresses = Addresses()
        self.networks: list[Network] = []
        self.held: dict[tuple[str, str], str] = {}
        self.count = 0

    @rule(ipv4=st.booleans(), size=st.sampled_from(SIZES), number=st.integers(0, 3), serial=st.booleans())
    def create(self, ipv4: bool, size: str, number: int, serial: bool) -> None:
        self.count += 1
        made = network(f"net{self.count}", enable_ipv4=ipv4, enable_ipv6=not ipv4 or number % 2 == 0)
        made.ipam_options = {"com.docker.network.ipam.serial": str(serial).lower()}
        asked = check_ipam_config([IpamEntry(size.format(number))] if size else [])
        small = [
            AddressPool(IPv4Network("172.30.0.0/27"), 29),
            AddressPool(IPv6Network("fd00:1::/123"), 125),
        ]
        try:
            made.subnets, _ = subnets.choose(made, asked, pools=small, others=self.networks, routes=[])
        except (Forbidden, Invalid):
            return
        self.addresses.add(made)
        self.networks.append(made)

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        idle = [n for n in self.networks if not any(key[0] == n.id for key in self.held)]
        if idle:
            gone = data.draw(st.sampled_from(idle))
            self.networks.remove(gone)
            self.addresses.remove(gone.id)

    @rule(data=st.data(), version=st.sampled_from([4, 6]), wanted=st.integers(0, 8) | st.none())
    def lease(self, data: st.DataObject, version: Any, wanted: int | None) -> None:
        if not self.networks:
            return
        self.count += 1
        place = data.draw(st.sampled_from(self.networks))
        prefixes = [ip_network(s.subnet) for s in place.subnets if s.version == version]
        asked = prefixes[0].network_address + wanted if prefixes and wanted is not None else None
        try:
            address = self.addresses.lease(place, str(self.count), version, asked)
        except (Unavailable, Forbidden, Invalid):
            return
        assert (place.id, address) not in self.held, "two owners"
        assert any(s.version == version and address != s.gateway for s in place.subnets)
        self.held[place.id, address] = str(self.count)

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if self.held:
            network_id, address = data.draw(st.sampled_from(sorted(self.held)))
            self.addresses.release(network_id, address)
            del self.held[network_id, address]

    @rule()
    def restart(self) -> None:
        """All is read back from what was stored."""
        self.addresses = Addresses()
        for each in self.networks:
            self.addresses.add(each)
        for (network_id, address), owner in self.held.items():
            self.addresses.restore(network_id, address, owner)

    @invariant()
    def subnets_are_disjoint_and_nothing_leaks(self) -> None:
        prefixes = [ip_network(s.subnet) for n in self.networks for s in n.subnets]
        for i, one in enumerate(prefixes):
            assert not any(one.version == other.version and one.overlaps(other) for other in prefixes[i + 1 :])
        for each in self.networks:
            for subnet, used, left in self.addresses.figures(each.id):
                prefix = ip_network(subnet)
                mine = sum(1 for n, a in self.held if n == each.id and (":" in a) == (prefix.version == 6))
                point_to_point = prefix.max_prefixlen - prefix.prefixlen < 2
                reserved = 1 if point_to_point else {4: 3, 6: 2}[prefix.version]
                assert used == mine + reserved
                assert used + left == prefix.num_addresses


LeaseLaws.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLeaseLaws = LeaseLaws.TestCase


def test_an_address_of_the_other_family_is_none_of_the_network_s() -> None:
    made = network("four")
    addresses = Addresses()
    addresses.add(made)
    with pytest.raises(NetengineError, match="no IPv6 subnet"):
        addresses.lease(made, "x", 6, None)
