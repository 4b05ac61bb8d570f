"""What a user's IPAM configuration must satisfy, in Docker's words."""

from ipaddress import ip_address, ip_network

import pytest

from netengine.errors import Invalid
from netengine.ipam import IpamEntry, check_ipam_config


def problems(*entries: IpamEntry) -> list[str]:
    with pytest.raises(Invalid) as refusal:
        check_ipam_config(entries)
    first, *rest = refusal.value.message.split("\n")
    assert first == "invalid network config:"
    return rest


def test_a_good_configuration_is_parsed():
    entry = IpamEntry("10.0.0.0/16", ip_range="10.0.5.0/24", gateway="10.0.0.254", aux={"printer": "10.0.5.9"})
    (config,) = check_ipam_config([entry])
    assert config.subnet == ip_network("10.0.0.0/16")
    assert config.ip_range == ip_network("10.0.5.0/24")
    assert config.gateway == ip_address("10.0.0.254")
    assert config.aux == {"printer": ip_address("10.0.5.9")}
    assert not config.wildcard


def test_one_subnet_of_each_family():
    configs = check_ipam_config([IpamEntry("10.0.0.0/24"), IpamEntry("fd00:5::/64", gateway="fd00:5::1")])
    assert [config.subnet.version for config in configs] == [4, 6]


@pytest.mark.parametrize("subnet", ["0.0.0.0/24", "::/64"])
def test_the_zero_address_stands_for_any_subnet_of_that_length(subnet: str):
    (config,) = check_ipam_config([IpamEntry(subnet)])
    assert config.wildcard


def test_an_empty_entry_asks_for_nothing():
    assert check_ipam_config([IpamEntry()]) == ()


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (IpamEntry("10.0.0.1/24"), "invalid subnet 10.0.0.1/24: it should be 10.0.0.0/24"),
        (IpamEntry("fd00::1/64"), "invalid subnet fd00::1/64: it should be fd00::/64"),
        (
            IpamEntry("10.0.0.0/24", ip_range="fd00::/64"),
            "invalid ip-range fd00::/64: parent subnet is an IPv4 block",
        ),
        (
            IpamEntry("fd00::/64", ip_range="10.0.0.0/24"),
            "invalid ip-range 10.0.0.0/24: parent subnet is an IPv6 block",
        ),
        (
            IpamEntry("10.0.0.0/24", ip_range="10.0.0.0/16"),
            "invalid ip-range 10.0.0.0/16: CIDR block is bigger than its parent subnet 10.0.0.0/24",
        ),
        (
            IpamEntry("10.0.0.0/24", ip_range="10.0.1.0/25"),
            "invalid ip-range 10.0.1.0/25: parent subnet 10.0.0.0/24 doesn't contain ip-range",
        ),
        (
            IpamEntry("10.0.0.0/24", ip_range="10.0.0.129/25"),
            "invalid ip-range 10.0.0.129/25: it should be 10.0.0.128/25",
        ),
        (
            IpamEntry("10.0.0.0/24", gateway="10.0.1.1"),
            "invalid gateway 10.0.1.1: parent subnet 10.0.0.0/24 doesn't contain this address",
        ),
        (IpamEntry("10.0.0.0/24", gateway="fd00::1"), "invalid gateway fd00::1: parent subnet is an IPv4 block"),
        (IpamEntry("10.0.0.0/24", gateway="10.0.0"), "invalid gateway 10.0.0: invalid address"),
        (
            IpamEntry("10.0.0.0/24", aux={"printer": "10.9.0.1"}),
            "invalid auxiliary address printer: parent subnet 10.0.0.0/24 doesn't contain this address",
        ),
        (IpamEntry("10.0.0.0/24", aux={"printer": ""}), "invalid auxiliary address printer: invalid address"),
        (
            IpamEntry(gateway="10.0.0.1"),
            "invalid subnet: none given for 10.0.0.1: every ip-range or gateway must have a corresponding subnet",
        ),
        (IpamEntry("224.0.0.0/8"), "invalid subnet 224.0.0.0/8: multicast addresses cannot be given to endpoints"),
        (IpamEntry("127.0.0.0/8"), "invalid subnet 127.0.0.0/8: loopback addresses cannot be given to endpoints"),
        (IpamEntry("ff00::/16"), "invalid subnet ff00::/16: multicast addresses cannot be given to endpoints"),
        (
            IpamEntry("fe80::/10"),
            "invalid subnet fe80::/10: 'fe80::/10' clashes with the Link-Local prefix 'fe80::/64', of which every link has an "
            "address",
        ),
        (
            IpamEntry("::ffff:10.0.0.0/104"),
            "invalid subnet ::ffff:10.0.0.0/104: '::ffff:a00:0/104' is not a valid IPv6 subnet: ::ffff:0:0/96 stands for IPv4 "
            "addresses",
        ),
        (
            IpamEntry("fd00::/64", ip_range="fd00::/48"),
            "invalid ip-range fd00::/48: CIDR block is bigger than its parent subnet fd00::/64",
        ),
        (IpamEntry("fd00::/64", gateway="10.0.0.1"), "invalid gateway 10.0.0.1: parent subnet is an IPv6 block"),
    ],
)
def test_one_mistake_one_line(entry: IpamEntry, problem: str):
    assert problems(entry) == [problem]


@pytest.mark.parametrize(
    "subnet",
    ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/", "10.0.0.0/255.255.0.0", "10.0.0.0/08", "10.0.0/8", "x/8",
     "010.0.0.0/8", "fd00::%eth0/64", " 10.0.0.0/8", "10.0.0.0/8 ", "10.0.0.0/٨", "/"],
)  # fmt: skip
def test_anything_else_than_address_and_length_is_no_subnet(subnet: str):
    assert problems(IpamEntry(subnet)) == [f"invalid subnet {subnet}: invalid CIDR block notation"]


def test_garbage_is_quoted_in_part():
    long = "x" * 5000
    entry = IpamEntry("10.0.0.0/24", ip_range=long, gateway=long, aux={long: long})
    assert [len(line) < 120 for line in problems(IpamEntry(long), entry)] == [True] * 4


def test_all_mistakes_of_all_entries_are_named_at_once():
    found = problems(
        IpamEntry("10.0.0.1/24", ip_range="10.0.0.0/8", gateway="192.0.2.1", aux={"a": "b", "c": "::1"}),
        IpamEntry("bad"),
    )
    assert found == [
        "invalid subnet 10.0.0.1/24: it should be 10.0.0.0/24",
        "invalid ip-range 10.0.0.0/8: CIDR block is bigger than its parent subnet 10.0.0.0/24",
        "invalid gateway 192.0.2.1: parent subnet 10.0.0.0/24 doesn't contain this address",
        "invalid auxiliary address a: invalid address",
        "invalid auxiliary address c: parent subnet is an IPv4 block",
        "invalid subnet bad: invalid CIDR block notation",
    ]


def test_subnets_of_one_request_may_not_overlap():
    (problem,) = problems(IpamEntry("10.0.0.0/16"), IpamEntry("10.0.5.0/24"))
    assert problem.startswith("invalid subnet 10.0.5.0/24: it overlaps 10.0.0.0/16")
