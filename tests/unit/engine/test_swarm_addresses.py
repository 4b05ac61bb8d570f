"""Which address a host is known by in its cluster: given, found, or refused in Docker's words."""

from ipaddress import ip_address

import pytest

from netengine.engine.swarm.addresses import Whereabouts, settle
from netengine.errors import Invalid
from netengine.kernel.theirs import HostAddress


def here(*rows: str) -> list[HostAddress]:
    return [HostAddress(link, ip_address(address)) for link, address in (row.split() for row in rows)]


ONE = here("eth0 192.0.2.1")
TWO = here("eth0 192.0.2.1", "eth1 198.51.100.1")
BOTH = here("eth0 192.0.2.1", "eth0 2001:db8::1")


def test_the_only_address_is_the_one() -> None:
    assert settle("", "", "", ONE) == Whereabouts("0.0.0.0", "192.0.2.1", "192.0.2.1")
    assert settle("0.0.0.0:2377", "", "", BOTH).advertise == "192.0.2.1", "IPv4 goes first"
    assert settle("", "", "", here("eth0 2001:db8::1")).advertise == "2001:db8::1"


def test_the_link_of_the_default_route_decides_among_several() -> None:
    assert settle("", "", "", TWO, uplink="eth1").advertise == "198.51.100.1"


@pytest.mark.parametrize(
    ("there", "uplink", "words"),
    [
        (
            TWO,
            "",
            "multiple addresses on different interfaces (192.0.2.1 on eth0 and 198.51.100.1 on eth1)",
        ),
        (
            here("eth0 192.0.2.1", "eth0 192.0.2.9", "eth1 198.51.100.1"),
            "eth0",
            "multiple addresses on interface eth0 (192.0.2.1 and 192.0.2.9)",
        ),
        ([], "", "could not find the system's IP address"),
    ],
)
def test_several_or_none_are_refused_in_dockers_words(there: list[HostAddress], uplink: str, words: str) -> None:
    """The docker CLI looks for these words, to name the flag."""
    with pytest.raises(Invalid) as refused:
        settle("", "", "", there, uplink)
    assert words in refused.value.message


@pytest.mark.parametrize("text", ["192.0.2.1", "192.0.2.1:2377", "eth0", "eth0:2377"])
def test_an_address_is_given_by_itself_or_by_its_link(text: str) -> None:
    assert settle("", text, "", TWO).advertise == "192.0.2.1"


def test_ipv6_is_written_in_brackets_or_without_a_port() -> None:
    for text in ("2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:2377"):
        assert settle("", text, "", BOTH).advertise == "2001:db8::1"


@pytest.mark.parametrize(("listen", "advertise"), [("0.0.0.0:3377", ""), ("", "192.0.2.1:3377")])
def test_managers_listen_on_one_port(listen: str, advertise: str) -> None:
    with pytest.raises(Invalid, match="listen on port 2377"):
        settle(listen, advertise, "", ONE)


def test_a_listen_address_is_advertised_too() -> None:
    assert settle("198.51.100.1:2377", "", "", TWO) == Whereabouts("198.51.100.1", "198.51.100.1", "198.51.100.1")


def test_tunnels_may_end_elsewhere() -> None:
    assert settle("", "eth0", "eth1", TWO).data_path == "198.51.100.1"
    with pytest.raises(Invalid, match="without a port number"):
        settle("", "eth0", "198.51.100.1:4789", TWO)
    with pytest.raises(Invalid, match="without a port number"):
        settle("", "eth0", "0.0.0.0", TWO)


@pytest.mark.parametrize(
    "text",
    ["0.0.0.0", "0.0.0.0:2377", "[::]:2377", "192.0.2.1:99999", "192.0.2.1:x", "192.0.2.1/24", "[192.0.2.1", "nosuch", "::x",
     "²", "eth0:²", "a b", "; reboot", "[]:1"],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="advertise address must be a non-zero IP address or network interface"):
        settle("", text, "", TWO)


def test_an_address_of_another_host_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(
        Invalid, match=r"203.0.113.5 is not an address of this host, which has: 192.0.2.1 \(eth0\), 198"
    ):
        settle("", "203.0.113.5", "", TWO)
    with pytest.raises(Invalid, match=r"listen address 203.0.113.5 is not"):
        settle("203.0.113.5:2377", "192.0.2.1", "", TWO)
