"""Which address an endpoint gets: the stories."""

import time
from ipaddress import ip_address, ip_network

import pytest

from netengine.errors import Forbidden, Invalid, Unavailable
from netengine.ipam import Pool


def pool(subnet: str, **options: object) -> Pool:
    for key in ("ip_range",):
        if key in options:
            options[key] = ip_network(options[key])
    if "gateway" in options:
        options["gateway"] = ip_address(options["gateway"])
    if "aux" in options:
        options["aux"] = {name: ip_address(text) for name, text in options["aux"].items()}
    return Pool(ip_network(subnet), **options)


def drain(from_pool: Pool) -> list[str]:
    leased = []
    while True:
        try:
            leased.append(str(from_pool.lease()))
        except Unavailable:
            return leased


def test_the_gateway_is_the_first_address_and_containers_follow():
    p = pool("172.17.0.0/16")
    assert str(p.gateway) == "172.17.0.1"
    assert [str(p.lease()) for _ in range(3)] == ["172.17.0.2", "172.17.0.3", "172.17.0.4"]


def test_a_released_address_is_the_next_one_given():
    p = pool("10.0.0.0/24")
    leased = [p.lease() for _ in range(5)]
    p.release(leased[3])
    p.release(leased[1])
    assert p.lease() == leased[1]
    assert p.lease() == leased[3]
    assert str(p.lease()) == "10.0.0.7"


def test_serial_pools_leave_a_released_address_alone_until_the_range_is_through():
    p = pool("10.0.0.0/29", serial=True)
    first = p.lease()
    p.release(first)
    assert drain(p) == ["10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2"]


@pytest.mark.parametrize(
    ("subnet", "gateway", "leases"),
    [
        ("10.0.0.0/29", "10.0.0.1", ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]),
        ("10.0.0.0/30", "10.0.0.1", ["10.0.0.2"]),
        ("10.0.0.0/31", "10.0.0.0", ["10.0.0.1"]),
        ("10.0.0.7/32", "10.0.0.7", []),
        ("fd00::/126", "fd00::1", ["fd00::2", "fd00::3"]),
        ("fd00::/127", "fd00::", ["fd00::1"]),
        ("fd00::5/128", "fd00::5", []),
    ],
)
def test_small_subnets_are_used_to_the_last_address(subnet: str, gateway: str, leases: list[str]):
    p = pool(subnet)
    assert str(p.gateway) == gateway
    assert drain(p) == leases
    assert p.available == 0


@pytest.mark.parametrize(
    ("subnet", "leases"),
    [
        ("10.0.0.0/31", ["10.0.0.0", "10.0.0.1"]),
        ("10.0.0.7/32", ["10.0.0.7"]),
        ("10.0.0.0/30", ["10.0.0.1", "10.0.0.2"]),
        ("::/127", ["::", "::1"]),
    ],
)
def test_a_network_without_gateway_gives_that_address_to_an_endpoint(subnet: str, leases: list[str]):
    p = pool(subnet, reserve_gateway=False)
    assert p.gateway is None
    assert drain(p) == leases


def test_a_given_gateway_leaves_the_first_address_to_endpoints():
    p = pool("10.0.0.0/24", gateway="10.0.0.254")
    assert str(p.gateway) == "10.0.0.254"
    assert str(p.lease()) == "10.0.0.1"


def test_auxiliary_addresses_are_never_given():
    p = pool("10.0.0.0/29", aux={"printer": "10.0.0.2", "router": "10.0.0.5"})
    assert drain(p) == ["10.0.0.3", "10.0.0.4", "10.0.0.6"]


def test_an_auxiliary_address_may_be_the_first_one_then_the_gateway_is_the_second():
    assert str(pool("10.0.0.0/29", aux={"router": "10.0.0.1"}).gateway) == "10.0.0.2"


def test_dynamic_leases_come_from_the_ip_range():
    p = pool("10.0.0.0/24", ip_range="10.0.0.128/30", gateway="10.0.0.1")
    assert drain(p) == ["10.0.0.128", "10.0.0.129", "10.0.0.130", "10.0.0.131"]


def test_without_a_gateway_of_its_own_an_ip_range_gives_its_first_address_to_it_as_docker_does():
    assert str(pool("10.0.0.0/16", ip_range="10.0.5.0/24").gateway) == "10.0.5.0"


def test_a_static_address_may_lie_outside_the_ip_range():
    p = pool("10.0.0.0/24", ip_range="10.0.0.128/30", gateway="10.0.0.1")
    assert str(p.lease(ip_address("10.0.0.77"))) == "10.0.0.77"
    assert p.available == 4


def test_dynamic_leases_step_over_static_ones():
    p = pool("10.0.0.0/24")
    p.lease(ip_address("10.0.0.3"))
    assert [str(p.lease()) for _ in range(2)] == ["10.0.0.2", "10.0.0.4"]


def test_a_taken_address_is_refused_with_its_holder():
    p = pool("10.0.0.0/24")
    address = p.lease(owner="endpoint of container db")
    with pytest.raises(Forbidden, match=r"^Address already in use \(10\.0\.0\.2 is held by endpoint of container db"):
        p.lease(address, owner="other")
    assert p.owner(address) == "endpoint of container db"


@pytest.mark.parametrize(
    ("address", "purpose"),
    [
        ("10.0.0.0", "the network address"),
        ("10.0.0.255", "the broadcast address"),
        ("10.0.0.1", "the gateway"),
        ("10.0.0.9", "auxiliary address printer"),
    ],
)
def test_a_reserved_address_is_refused_with_what_it_is(address: str, purpose: str):
    p = pool("10.0.0.0/24", aux={"printer": "10.0.0.9"})
    with pytest.raises(Forbidden, match=f"Address already in use .{address} is {purpose} of 10.0.0.0/24"):
        p.lease(ip_address(address))


@pytest.mark.parametrize("address", ["10.0.1.0", "9.255.255.255", "fd00::1", "::a00:5"])
def test_an_address_outside_is_refused_with_the_subnet(address: str):
    with pytest.raises(Invalid, match=f"no configured subnet contains IP address {address} .*10.0.0.0/24"):
        pool("10.0.0.0/24").lease(ip_address(address))


def test_an_exhausted_pool_says_which_network_and_how_many():
    p = pool("10.0.0.0/30", label="app (0123456789ab)")
    p.lease()
    with pytest.raises(Unavailable) as refusal:
        p.lease()
    assert refusal.value.message.startswith(
        "no available IPv4 addresses on this network's address pools: app (0123456789ab)"
    )
    assert "10.0.0.0/30 has 4 addresses" in refusal.value.message


def test_an_exhausted_ip_range_is_named():
    p = pool("10.0.0.0/24", ip_range="10.0.0.8/32", gateway="10.0.0.1")
    p.lease()
    with pytest.raises(Unavailable, match=r"ip-range 10\.0\.0\.8/32 of 10\.0\.0\.0/24 has 1 address,"):
        p.lease()


@pytest.mark.parametrize("address", ["10.0.0.0", "10.0.0.1", "10.0.0.9", "10.0.0.50", "10.9.9.9", "fd00::1"])
def test_releasing_what_is_reserved_free_or_foreign_does_nothing(address: str):
    p = pool("10.0.0.0/24", aux={"printer": "10.0.0.9"})
    before = (p.in_use, p.available)
    p.release(ip_address(address))
    assert (p.in_use, p.available) == before
    assert str(p.lease()) == "10.0.0.2"


def test_releasing_twice_frees_once():
    p = pool("10.0.0.0/24")
    address = p.lease()
    p.release(address)
    p.release(address)
    assert {str(p.lease()), str(p.lease())} == {"10.0.0.2", "10.0.0.3"}


def test_the_counts_are_dockers():
    """IPsInUse counts network, broadcast, gateway and auxiliary addresses; DynamicIPsAvailable only the range."""
    p = pool("10.0.0.0/24")
    assert (p.in_use, p.available) == (3, 253)
    p = pool("10.0.0.0/24", ip_range="10.0.0.2/31", gateway="10.0.0.1", aux={"in": "10.0.0.2", "out": "10.0.0.99"})
    assert (p.in_use, p.available) == (5, 1)
    p.lease()
    assert (p.in_use, p.available) == (6, 0)
    v6 = pool("fd00::/64")
    assert (v6.in_use, v6.available) == (2, 2**64 - 2)


def test_a_gateway_outside_the_subnet_is_refused():
    with pytest.raises(Invalid):
        pool("10.0.0.0/24", gateway="10.0.1.1")


def test_a_gateway_on_the_network_address_is_refused():
    with pytest.raises(Forbidden, match="the network address"):
        pool("10.0.0.0/24", gateway="10.0.0.0")


def test_an_ip_range_outside_the_subnet_is_refused():
    with pytest.raises(Invalid, match="doesn't contain ip-range"):
        pool("10.0.0.0/24", ip_range="10.0.1.0/25")


def test_restored_leases_are_held_and_restoring_again_changes_nothing():
    old = pool("10.0.0.0/24")
    for owner in ("web", "db", "cache"):
        old.lease(owner=owner)
    old.release(ip_address("10.0.0.3"))
    saved = dict(old.leases())
    new = pool("10.0.0.0/24")
    new.restore(saved)
    new.restore(saved)
    assert dict(new.leases()) == saved
    assert (new.in_use, new.available) == (old.in_use, old.available)
    assert str(new.lease()) == "10.0.0.3"


def test_restoring_over_somebody_elses_lease_is_refused_and_takes_nothing():
    p = pool("10.0.0.0/24")
    p.lease(owner="web")
    with pytest.raises(Forbidden):
        p.restore({ip_address("10.0.0.9"): "db", ip_address("10.0.0.2"): "db"})
    assert dict(p.leases()) == {ip_address("10.0.0.2"): "web"}


def test_sixty_five_thousand_leases_of_a_slash_8_are_fast_even_when_every_second_is_released():
    started = time.process_time()
    p = pool("10.0.0.0/8")
    leased = [p.lease(owner="x") for _ in range(65_000)]
    for address in leased[::2]:
        p.release(address)
    again = [p.lease(owner="y") for _ in range(32_500)]
    assert again == leased[::2]
    assert time.process_time() - started < 3, "an address must not cost a walk over the others"
