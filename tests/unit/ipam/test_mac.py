"""Link-layer addresses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netengine.errors import Invalid
from netengine.ipam import parse_mac, random_mac, steady_mac


@given(st.binary(min_size=6, max_size=6))
def test_a_random_address_is_unicast_and_locally_administered(entropy: bytes):
    mac = random_mac(lambda count: entropy[:count])
    assert int(mac[:2], 16) & 0b11 == 0b10
    assert parse_mac(mac) == mac


def test_two_random_addresses_differ():
    assert random_mac() != random_mac()


def test_the_mac_that_goes_with_an_address_is_the_same_every_time_and_no_other_s():
    networks, addresses = ("a", "b"), [f"10.0.{n // 250}.{n % 250}" for n in range(1000)]
    macs = [steady_mac(network, address) for network in networks for address in addresses]
    assert macs == [steady_mac(network, address) for network in networks for address in addresses]
    assert len(set(macs)) == 2000
    assert all(int(mac[:2], 16) & 0b11 == 0b10 and parse_mac(mac) == mac for mac in macs)


@pytest.mark.parametrize("text", ["02:42:AC:11:00:02", "02-42-ac-11-00-02", "0242.ac11.0002", "2:42:ac:11:0:2"])
def test_every_usual_notation_gives_the_canonical_one(text: str):
    assert parse_mac(text) == "02:42:ac:11:00:02"


@pytest.mark.parametrize(
    "text",
    ["", "02:42:ac:11:00", "02:42:ac:11:00:02:03", "02:42:ac:11:00:zz", "02:42-ac:11:00:02", "0242ac110002",
     "02:42:ac:11:00:02\n", "02:42:ac:11:00:٠2", "x" * 5000],
)  # fmt: skip
def test_a_malformed_address_is_refused(text: str):
    with pytest.raises(Invalid, match="invalid mac address"):
        parse_mac(text)


def test_the_zero_address_is_refused():
    with pytest.raises(Invalid, match="zero address"):
        parse_mac("00:00:00:00:00:00")


@pytest.mark.parametrize("text", ["01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01"])
def test_a_multicast_address_is_refused(text: str):
    with pytest.raises(Invalid, match="multicast"):
        parse_mac(text)
