"""Which subnet a network gets."""

from ipaddress import IPv4Network, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netengine.errors import Forbidden, Invalid
from netengine.ipam import DEFAULT_POOLS, AddressPool, any_subnet, check_overlap, choose_subnet, ula_pool

ALL_31 = [subnet for pool in DEFAULT_POOLS for subnet in IPv4Network(str(pool.base)).subnets(new_prefix=pool.size)]


def nets(*texts: str) -> list:
    return [ip_network(text) for text in texts]


def test_the_first_network_gets_172_17():
    assert choose_subnet(DEFAULT_POOLS, in_use=[], routes=[]) == ip_network("172.17.0.0/16")


def test_networks_get_the_31_default_subnets_in_order():
    taken = []
    for expected in ALL_31:
        subnet = choose_subnet(DEFAULT_POOLS, in_use=taken, routes=[])
        assert subnet == expected
        taken.append(subnet)
    assert len(taken) == 31
    assert str(taken[13]) == "172.30.0.0/16"
    assert str(taken[-1]) == "192.168.240.0/20"


def test_a_released_subnet_is_given_again():
    in_use = nets("172.17.0.0/16", "172.19.0.0/16")
    assert choose_subnet(DEFAULT_POOLS, in_use=in_use, routes=[]) == ip_network("172.18.0.0/16")


@pytest.mark.parametrize("route", ["172.17.0.0/16", "172.17.5.0/24", "172.17.255.255/32", "172.16.0.0/15"])
def test_a_subnet_that_a_host_route_overlaps_is_skipped(route: str):
    chosen = choose_subnet(DEFAULT_POOLS, in_use=[], routes=nets(route))
    assert chosen == ip_network("172.18.0.0/16")


def test_a_default_route_blocks_nothing():
    assert choose_subnet(DEFAULT_POOLS, in_use=[], routes=nets("0.0.0.0/0")) == ip_network("172.17.0.0/16")


def test_when_all_are_taken_the_message_has_dockers_words_the_figures_and_the_remedy():
    with pytest.raises(Invalid) as refusal:
        choose_subnet(DEFAULT_POOLS, in_use=ALL_31[:15], routes=nets("192.168.0.0/16"))
    text = refusal.value.message
    assert text.startswith("all predefined address pools have been fully subnetted")
    assert "31 subnets in the pools, 15 used by other networks" in text
    assert "16 skipped because of the host's routes 192.168.0.0/16" in text
    assert "--subnet" in text


def test_the_message_names_no_route_when_none_is_to_blame():
    with pytest.raises(Invalid) as refusal:
        choose_subnet(DEFAULT_POOLS, in_use=ALL_31, routes=nets("10.0.0.0/8"))
    assert "31 used by other networks;" in refusal.value.message
    assert "route" not in refusal.value.message


def test_a_subnet_smaller_than_its_pool_blocks_the_whole_slot():
    chosen = choose_subnet(DEFAULT_POOLS, in_use=nets("172.17.200.0/24", "172.18.0.0/30"), routes=[])
    assert chosen == ip_network("172.19.0.0/16")


def test_ipv6_pools_serve_ipv6_networks_only():
    pools = [*DEFAULT_POOLS, AddressPool(ip_network("fd00:1::/48"), 64)]
    first = choose_subnet(pools, in_use=[], routes=[], version=6)
    assert first == ip_network("fd00:1::/64")
    assert choose_subnet(pools, in_use=[first], routes=[], version=6) == ip_network("fd00:1:0:1::/64")
    assert choose_subnet(pools, in_use=[first], routes=[]) == ip_network("172.17.0.0/16")


def test_without_a_pool_of_the_family_there_is_no_subnet():
    with pytest.raises(Invalid, match="0 subnets in the pools"):
        choose_subnet(DEFAULT_POOLS, in_use=[], routes=[], version=6)


def test_a_full_slash_8_of_small_subnets_is_searched_without_trying_each():
    pools = [AddressPool(ip_network("10.0.0.0/8"), 29)]
    last = ip_network("10.255.255.248/29")
    in_use = [*ip_network("10.0.0.0/9").subnets(new_prefix=20), *nets("10.128.0.0/9")]
    with pytest.raises(Invalid, match="2097152 subnets in the pools, 2097152 used"):
        choose_subnet(pools, in_use=in_use, routes=[])
    all_but_last = [*in_use[:-1], *ip_network("10.128.0.0/9").address_exclude(last)]
    assert choose_subnet(pools, in_use=all_but_last, routes=[]) == last


def test_any_free_slash_24():
    in_use = nets("172.17.0.0/24", "172.17.2.0/24")
    assert any_subnet(24, in_use=in_use, routes=[]) == ip_network("172.17.1.0/24")


def test_any_free_subnet_larger_than_the_pools_own_cut():
    assert any_subnet(14, in_use=nets("172.17.0.0/16"), routes=[]) == ip_network("172.20.0.0/14")


@pytest.mark.parametrize("prefixlen", [0, 8, 13, 33])
def test_any_subnet_that_no_pool_can_hold_is_refused(prefixlen: int):
    with pytest.raises(Invalid, match=f"invalid subnet 0.0.0.0/{prefixlen}: no address pool is that large"):
        any_subnet(prefixlen, in_use=[], routes=[])


def test_any_free_ipv6_slash_64():
    pools = [AddressPool(IPv6Network("fd12:3456:789a::/48"), 64)]
    assert any_subnet(64, pools=pools, in_use=[], routes=[], version=6) == ip_network("fd12:3456:789a::/64")


def test_any_subnet_of_exhausted_pools_says_so():
    with pytest.raises(Invalid, match="fully subnetted"):
        any_subnet(24, in_use=ALL_31, routes=[])


@pytest.mark.parametrize("subnet", ["172.18.0.0/16", "172.18.5.0/24", "172.16.0.0/12"])
def test_an_overlap_is_refused_with_the_other_networks_name(subnet: str):
    others = {"frontend": nets("10.0.0.0/24"), "backend": nets("fd00::/64", "172.18.0.0/16")}
    with pytest.raises(Forbidden) as refusal:
        check_overlap(ip_network(subnet), others)
    assert refusal.value.message.startswith("Pool overlaps with other one on this address space")
    assert f"({subnet} overlaps 172.18.0.0/16 of network backend" in refusal.value.message


def test_neighbours_and_the_other_family_do_not_overlap():
    check_overlap(ip_network("172.18.0.0/16"), [("a", ip_network("172.17.0.0/16")), ("b", ip_network("fd00::/64"))])


_blocks = st.tuples(st.integers(0, 2**16 - 1), st.integers(18, 32)).map(
    lambda pair: IPv4Network((0x0A000000 + pair[0], pair[1]), strict=False)
)


@given(st.lists(_blocks, max_size=12), st.integers(18, 26))
def test_the_chosen_subnet_is_the_first_that_a_plain_search_finds(blocked: list[IPv4Network], size: int):
    pools = [AddressPool(IPv4Network("10.0.0.0/18"), size), AddressPool(IPv4Network("10.0.128.0/18"), size)]
    candidates = [subnet for pool in pools for subnet in IPv4Network(str(pool.base)).subnets(new_prefix=size)]
    free = [subnet for subnet in candidates if not any(subnet.overlaps(block) for block in blocked)]
    if free:
        assert choose_subnet(pools, in_use=blocked[::2], routes=blocked[1::2]) == free[0]
        return
    used = sum(any(subnet.overlaps(block) for block in blocked) for subnet in candidates)
    with pytest.raises(Invalid, match=f"{len(candidates)} subnets in the pools, {used} used"):
        choose_subnet(pools, in_use=blocked, routes=[])


# ---------------------------------------------------------------------- IPv6


@pytest.mark.parametrize(
    ("host_id", "prefix"),
    [("", "fd42:98fc:1c14::/48"), ("499d4bc0-b0b3-416f-b1ee-cf6486315593", "fd62:fb69:18af::/48")],
)
def test_a_host_s_own_prefix_is_the_one_that_docker_derives(host_id: str, prefix: str):
    assert ula_pool(host_id) == AddressPool(IPv6Network(prefix), 64)


def test_a_pool_of_18_quintillion_subnets_is_walked_by_its_obstacles():
    pool = AddressPool(IPv6Network("fd00::/8"), 72)
    taken = nets("fd00::/16", "fd01::/64")
    assert choose_subnet([pool], in_use=taken, routes=[], version=6) == ip_network("fd01:0:0:1::/72")


def test_any_free_subnet_of_ipv6():
    pools = [*DEFAULT_POOLS, ula_pool("")]
    assert any_subnet(80, pools=pools, in_use=[], routes=[], version=6) == ip_network("fd42:98fc:1c14::/80")
    with pytest.raises(Invalid, match="::/32: no address pool is that large"):
        any_subnet(32, pools=pools, in_use=[], routes=[], version=6)


@given(st.lists(st.integers(0, 255), max_size=40), st.integers(56, 66))
def test_chosen_subnets_of_ipv6_never_overlap_what_is_taken(numbers: list[int], size: int):
    pool = AddressPool(IPv6Network("fd00:1::/56"), size)
    taken = [IPv6Network(((0xFD000001 << 96) + (n << 66), 62)) for n in numbers]
    try:
        chosen = choose_subnet([pool], in_use=taken, routes=[], version=6)
    except Invalid:
        assert all(any(s.overlaps(t) for t in taken) for s in pool.base.subnets(new_prefix=min(size, 62)))
        return
    assert chosen.prefixlen == size
    assert chosen.subnet_of(pool.base)
    assert not any(chosen.overlaps(t) for t in taken)
