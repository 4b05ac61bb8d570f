"""What `--driver-opt`, link-local addresses and a network's options for its endpoints come to."""

from __future__ import annotations

import pytest

from netengine.drivers import endpoint_options
from netengine.drivers.endpoint_options import (
    ANNOUNCEMENTS,
    IFNAME,
    INTERVAL,
    PREFIX,
    SYSCTLS,
    announcements,
    check_network,
    link_local,
    link_prefix,
    over,
    parse,
    render,
)
from netengine.errors import Invalid
from netengine.kernel.resources import HOST, Address, Sysctl, TokenBucket
from netengine.model import Endpoint
from tests.unit.engine.model import network

LOG = "net/ipv4/conf/IFNAME/log_martians"


def endpoint(**fields: object) -> Endpoint:
    return Endpoint(id="e", network_id="n", container_id="c", sandbox_id="s", link="wan", **fields)  # type: ignore[arg-type]


def test_sysctls_name_the_interface_by_a_placeholder() -> None:
    asked = parse({SYSCTLS: "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.neigh.ifname.gc_stale_time=7"})
    assert asked.sysctls == {LOG: "1", "net/ipv6/neigh/IFNAME/gc_stale_time": "7"}


def test_an_interface_name() -> None:
    assert parse({IFNAME: "wan-0.7"}).link == "wan-0.7"
    assert parse({}).link == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"x": "y"}, f"unknown endpoint option 'x'; known are {SYSCTLS}, {IFNAME}, rate, rate_in, rate_out"),
        ({IFNAME: ""}, f"invalid value '' for {IFNAME}: an interface name has 1 to 15"),
        ({IFNAME: "lo"}, f"invalid value 'lo' for {IFNAME}"),
        ({IFNAME: "all"}, f"invalid value 'all' for {IFNAME}"),
        ({IFNAME: "."}, f"invalid value '.' for {IFNAME}"),
        ({IFNAME: "a/b"}, f"invalid value 'a/b' for {IFNAME}"),
        ({IFNAME: "a" * 16}, f"invalid value 'aaaaaaaaaaaaaaaa' for {IFNAME}"),
        ({SYSCTLS: "net.ipv4.conf.eth0.log_martians=1"}, "invalid value 'net.ipv4.conf.eth0.log_martians=1' in"),
        ({SYSCTLS: "net.ipv4.conf.IFNAME.log_martians"}, "invalid value 'net.ipv4.conf.IFNAME.log_martians' in"),
        ({SYSCTLS: "net.ipv4.conf.IFNAME.a/../b=1"}, "invalid value 'net.ipv4.conf.IFNAME.a/../b=1' in"),
        ({SYSCTLS: "net.ipv4..IFNAME.x=1"}, "invalid value 'net.ipv4..IFNAME.x=1' in"),
        ({SYSCTLS: "kernel.x.y.IFNAME.panic=1"}, "invalid value 'kernel.x.y.IFNAME.panic=1' in"),
        ({SYSCTLS: "net.ipv4.conf.IFNAME.x=1,"}, "invalid value '' in"),
        ({SYSCTLS: "net.ipv4.conf.IFNAME.x=1\n2"}, "invalid value '1\\n2' of sysctl net.ipv4.conf.IFNAME.x"),
    ],
)
def test_endpoint_options_that_cannot_be(options: dict[str, str], words: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse(options)
    assert refused.value.message.startswith(words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({PREFIX: ""}, f"invalid value '' for {PREFIX}"),
        ({PREFIX: "lo"}, f"invalid value 'lo' for {PREFIX}"),
        ({PREFIX: "a" * 13}, f"invalid value '{'a' * 13}' for {PREFIX}"),
        ({ANNOUNCEMENTS: "4"}, f"invalid value '4' for {ANNOUNCEMENTS}: it must be a number from 0 to 3"),
        ({ANNOUNCEMENTS: "-1"}, f"invalid value '-1' for {ANNOUNCEMENTS}"),
        ({INTERVAL: "99"}, f"invalid value '99' for {INTERVAL}: it must be a number from 100 to 2000"),
        ({INTERVAL: "1s"}, f"invalid value '1s' for {INTERVAL}"),
    ],
)
def test_network_options_that_cannot_be(options: dict[str, str], words: str) -> None:
    with pytest.raises(Invalid) as refused:
        check_network(options)
    assert refused.value.message.startswith(words)


def test_what_a_network_says_of_its_endpoints() -> None:
    blue = network("blue", options={PREFIX: "net", ANNOUNCEMENTS: "1", INTERVAL: "200"})
    check_network(blue.options)
    assert (link_prefix(blue), announcements(blue)) == ("net", (1, 200))
    assert (link_prefix(network("green")), announcements(network("green"))) == ("eth", (3, 1000))


@pytest.mark.parametrize(("text", "interface"), [("169.254.7.7", "169.254.7.7/16"), ("FE80::7", "fe80::7/64")])
def test_link_local_addresses_have_the_length_of_their_range(text: str, interface: str) -> None:
    assert link_local(text) == interface


@pytest.mark.parametrize("text", ["10.0.0.1", "", "x", "169.254.1.0/24", "fe80::1%eth0", "fd00::1"])
def test_other_addresses_are_not_link_local(text: str) -> None:
    with pytest.raises(Invalid, match="invalid link-local IP address"):
        link_local(text)


def test_an_endpoint_renders_what_was_asked_for() -> None:
    made = render(network("blue"), endpoint(link_local=["169.254.7.7/16"], sysctls={LOG: "1"}))
    assert made == {Address("s", "wan", "169.254.7.7/16"), Sysctl("s", "net/ipv4/conf/wan/log_martians", "1")}
    assert render(network("blue"), Endpoint(id="e", network_id="n", container_id="c", sandbox_id="s")) == frozenset()


def test_a_network_without_announcements_keeps_the_kernel_quiet_too() -> None:
    quiet = network("blue", options={ANNOUNCEMENTS: "0"})
    assert render(quiet, endpoint()) == {Sysctl("s", "net/ipv4/conf/wan/arp_notify", "0")}
    asked = endpoint(sysctls={"net/ipv4/conf/IFNAME/arp_notify": "1"})
    assert render(quiet, asked) == {Sysctl("s", "net/ipv4/conf/wan/arp_notify", "1")}


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("10mbit", 10_000_000),
        ("10MBit", 10_000_000),
        ("1.5gbit", 1_500_000_000),
        ("64kibit", 65_536),
        ("500kbps", 4_000_000),
        ("1mibps", 8 * 1024 * 1024),
        ("8001", 8000),
        ("1tbit", 10**12),
    ],
)
def test_rates_are_written_as_for_tc(text: str, bits: int) -> None:
    assert (parse({"rate": text}).rate_in, parse({"rate": text}).rate_out) == (bits, bits)


@pytest.mark.parametrize("text", ["", "fast", "-1mbit", "10 mbit s", "10mb", "1e6", "0", "7kbit", "2tbit", "9" * 400])
def test_rates_that_cannot_be(text: str) -> None:
    with pytest.raises(Invalid, match="for rate: "):
        parse({"rate": text})


def test_each_direction_may_have_its_own_rate() -> None:
    asked = parse({"rate": "10mbit", "rate_out": "1mbit"})
    assert (asked.rate_in, asked.rate_out) == (10_000_000, 1_000_000)
    made = render(network("blue"), endpoint(host_link="veth0", rate_in=asked.rate_in, rate_out=asked.rate_out))
    assert made == {TokenBucket(HOST, "veth0", 10_000_000), TokenBucket("s", "wan", 1_000_000)}
    assert parse({"rate_in": "1mbit"}).rate_out == 0


def test_what_a_user_asked_for_stands_above_the_driver_s() -> None:
    below = {Sysctl("s", "a", "1"), Sysctl("s", "b", "1")}
    assert over(below, {Sysctl("s", "a", "2")}) == {Sysctl("s", "a", "2"), Sysctl("s", "b", "1")}


def test_every_option_is_checked_by_name() -> None:
    assert set(endpoint_options.NETWORK_OPTIONS) == {PREFIX, ANNOUNCEMENTS, INTERVAL}
