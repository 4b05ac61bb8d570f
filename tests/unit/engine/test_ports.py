"""Published ports: from what a user writes to wishes, and from wishes to ports that are held."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netengine.engine.ports import PortWish, Ways, parse_port, reserve, settle, wishes
from netengine.errors import Invalid, KernelRefused
from netengine.kernel.hostports import PortAsk, PortTaken, take
from netengine.kernel.resources import HostPort, Protocol
from netengine.model import PortBinding, PublishedPort


def binding(host_port: str = "", host_ip: str = "") -> PortBinding:
    return PortBinding(host_ip=host_ip, host_port=host_port)


def one(spec: str, host_port: str = "", host_ip: str = "") -> PortWish:
    (wish,) = wishes({spec: [binding(host_port, host_ip)]}, {}, False)
    return wish


# ---------------------------------------------------------------------- the forms of -p, as docker sends them


@pytest.mark.parametrize(
    ("spec", "host_port", "host_ip", "wish"),
    [
        ("80/tcp", "", "", PortWish(80, "tcp", "", 0, 0)),  # -p 80
        ("80", "", "", PortWish(80, "tcp", "", 0, 0)),
        ("80/tcp", "0", "", PortWish(80, "tcp", "", 0, 0)),  # -p 0:80
        ("80/tcp", "8080", "", PortWish(80, "tcp", "", 8080, 8080)),  # -p 8080:80
        ("80/tcp", "8080", "127.0.0.1", PortWish(80, "tcp", "127.0.0.1", 8080, 8080)),  # -p 127.0.0.1:8080:80
        ("80/tcp", "", "127.0.0.1", PortWish(80, "tcp", "127.0.0.1", 0, 0)),  # -p 127.0.0.1::80
        ("80/tcp", "8000-8010", "", PortWish(80, "tcp", "", 8000, 8010)),  # -p 8000-8010:80
        ("80/tcp", "8000-8000", "", PortWish(80, "tcp", "", 8000, 8000)),
        ("53/udp", "53", "", PortWish(53, "udp", "", 53, 53)),  # -p 53:53/udp
        ("53/UDP", "53", "", PortWish(53, "udp", "", 53, 53)),
        ("9/sctp", "9", "0.0.0.0", PortWish(9, "sctp", "0.0.0.0", 9, 9)),
        ("65535/tcp", "65535", "", PortWish(65535, "tcp", "", 65535, 65535)),
    ],
)
def test_a_binding(spec: str, host_port: str, host_ip: str, wish: PortWish) -> None:
    assert one(spec, host_port, host_ip) == wish


@pytest.mark.parametrize(
    ("spec", "host_port", "host_ip", "words"),
    [
        ("0/tcp", "", "", "invalid container port '0/tcp'"),
        ("65536/tcp", "", "", "invalid container port '65536'"),
        ("http/tcp", "", "", "invalid container port 'http'"),
        ("80/icmp", "", "", "invalid protocol 'icmp' of port '80/icmp': it must be tcp, udp or sctp"),
        ("", "", "", "invalid container port ''"),
        ("-1/tcp", "", "", "invalid container port '-1'"),
        ("٨٠/tcp", "", "", "invalid container port '٨٠'"),
        ("80/tcp", "65536", "", "invalid published port '65536'"),
        ("80/tcp", "80 80", "", "invalid published port '80 80'"),
        ("80/tcp", "8010-8000", "", "invalid range of published ports '8010-8000': it ends before it begins"),
        ("80/tcp", "8000-", "", "invalid published port ''"),
        ("80/tcp", "-8000", "", "invalid published port ''"),
        ("80/tcp", "8080", "localhost", "invalid host address 'localhost'"),
        ("80/tcp", "8080", "300.0.0.1", "invalid host address '300.0.0.1'"),
        ("80/tcp", "8080", "fd00::1%x }; flush ruleset #", "invalid host address 'fd00::1%x }; flush ruleset #'"),
        ("80/tcp", "8080", "fe80::1", "cannot publish on fe80::1"),
        ("80/tcp", "8080", "ff02::1", "cannot publish on ff02::1"),
        ("80/tcp", "8080", "224.0.0.1", "cannot publish on 224.0.0.1"),
    ],
)
def test_a_binding_that_cannot_be(spec: str, host_port: str, host_ip: str, words: str) -> None:
    with pytest.raises(Invalid) as refused:
        one(spec, host_port, host_ip)
    assert refused.value.message.startswith(words)


@given(st.text())
def test_any_text_is_a_port_or_refused(text: str) -> None:
    try:
        port, protocol = parse_port(text)
    except Invalid as e:
        assert len(e.message) < 300, "garbage is quoted in part"
        return
    assert 1 <= port <= 65535 and protocol in ("tcp", "udp", "sctp")


def test_a_port_published_twice_is_two_wishes() -> None:
    asked = wishes({"80/tcp": [binding("8080"), binding("8081")]}, {}, False)
    assert [w.low for w in asked] == [8080, 8081]


def test_a_port_with_no_binding_is_not_published() -> None:
    assert wishes({"80/tcp": None, "81/tcp": []}, {}, False) == []


def test_an_exposed_port_is_published_with_publish_all_only() -> None:
    assert wishes({}, {"80/tcp": {}}, False) == []
    assert wishes({}, {"80/tcp": {}, "53/udp": {}}, True) == [
        PortWish(53, "udp", "", 0, 0),
        PortWish(80, "tcp", "", 0, 0),
    ]


def test_publish_all_leaves_alone_what_is_bound_already() -> None:
    asked = wishes({"80/tcp": [binding("8080")]}, {"80": {}, "80/udp": {}}, True)
    assert [(w.container_port, w.protocol, w.low) for w in asked] == [(80, "tcp", 8080), (80, "udp", 0)]


def test_certain_ports_are_asked_for_first() -> None:
    """Or a chosen one could take what another asks for by number."""
    asked = wishes({"1": [binding()], "2": [binding("9000-9010")], "3": [binding("9001")]}, {}, False)
    assert [w.container_port for w in asked] == [3, 2, 1]


# ---------------------------------------------------------------------- taking them


class Host:
    """The ports of a host: those of others, and those that were taken. Ephemeral ones are given out from 32768."""

    def __init__(self, *taken: int, family: int = 4) -> None:
        self.taken = {(family, port) for port in taken}
        self.asked: list[int] = []
        self.chosen = iter(range(32768, 60999))

    async def reserve(self, asks: list[PortAsk]) -> list[int]:
        return [ports[0].port for ports in take(asks, self._one, self._give_back)]

    def _one(self, address: str, protocol: Protocol, port: int) -> HostPort:
        port = port or next(self.chosen)
        self.asked.append(port)
        family = 6 if ":" in address else 4
        if (family, port) in self.taken:
            raise PortTaken(f"Bind for {address}:{port} failed: port is already allocated")
        self.taken.add((family, port))
        return HostPort(address, protocol, port)

    def _give_back(self, ports: Iterable[HostPort]) -> None:
        self.taken -= {(6 if ":" in p.address else 4, p.port) for p in ports}


def taken(host: Host, *asked: PortWish, default: str = "0.0.0.0", ways: Ways | None = None) -> list[tuple[str, int]]:
    ways = ways or Ways(ip="nat", default=default)
    ports = asyncio.run(reserve(host, list(asked), ways))  # type: ignore[arg-type]
    return [(p.host_ip, p.host_port) for p in ports]


def test_a_port_asked_for_by_number_is_that_port() -> None:
    assert taken(Host(), PortWish(80, "tcp", "", 8080, 8080)) == [("0.0.0.0", 8080)]


def test_without_an_address_the_default_one_is_used() -> None:
    wanted = PortWish(80, "tcp", "", 8080, 8080), PortWish(81, "tcp", "192.0.2.1", 8081, 8081)
    assert taken(Host(), *wanted, default="127.0.0.1") == [("127.0.0.1", 8080), ("192.0.2.1", 8081)]


def test_the_lowest_free_port_of_a_range_is_taken() -> None:
    assert taken(Host(8000, 8001), PortWish(80, "tcp", "", 8000, 8010)) == [("0.0.0.0", 8002)]


def test_a_taken_port_is_refused_in_docker_s_words() -> None:
    with pytest.raises(KernelRefused) as refused:
        taken(Host(8080), PortWish(80, "tcp", "", 8080, 8080))
    assert refused.value.message == "Bind for 0.0.0.0:8080 failed: port is already allocated"


def test_a_range_that_is_taken_says_how_many_it_has() -> None:
    with pytest.raises(KernelRefused) as refused:
        taken(Host(8000, 8001, 8002), PortWish(80, "tcp", "127.0.0.1", 8000, 8002))
    assert refused.value.message == (
        "Bind for 127.0.0.1:8000-8002 failed: all 3 ports of the range are already allocated"
    )


def test_any_free_port_is_what_the_kernel_chooses() -> None:
    assert taken(Host(), PortWish(80, "tcp", "", 0, 0)) == [("0.0.0.0", 32768)]


def test_a_chosen_port_that_was_lost_in_a_race_is_chosen_again() -> None:
    assert taken(Host(32768, 32769), PortWish(80, "tcp", "", 0, 0)) == [("0.0.0.0", 32770)]


def test_none_is_kept_when_one_is_taken() -> None:
    host = Host(8081)
    with pytest.raises(KernelRefused, match="8081 failed"):
        taken(host, PortWish(80, "tcp", "", 8080, 8080), PortWish(81, "tcp", "", 8081, 8081))
    assert host.taken == {(4, 8081)}


def test_choosing_is_given_up_in_the_end() -> None:
    host = Host(*range(32768, 33000))
    with pytest.raises(PortTaken):
        taken(host, PortWish(80, "tcp", "", 0, 0))
    assert len(host.asked) == 10


# ---------------------------------------------------------------------- two families

WEB = PortWish(80, "tcp", "", 8080, 8080)
ANY = PortWish(80, "tcp", "", 0, 0)
V4_ONLY = Ways(ip="nat", listens6=True)
DUAL = Ways(ip="nat", ip6="nat", listens6=True)
V6_ONLY = Ways(ip6="nat", listens6=True)


@pytest.mark.parametrize(
    ("ways", "host_ip", "expected"),
    [
        (V4_ONLY, "", [("0.0.0.0", 8080), ("::", 8080)]),
        (DUAL, "", [("0.0.0.0", 8080), ("::", 8080)]),
        (V6_ONLY, "", [("::", 8080)]),
        (Ways(ip="nat"), "", [("0.0.0.0", 8080)]),  # a host without IPv6
        (DUAL, "0.0.0.0", [("0.0.0.0", 8080)]),
        (DUAL, "127.0.0.1", [("127.0.0.1", 8080)]),
        (DUAL, "::", [("::", 8080)]),
        (V4_ONLY, "::1", [("::1", 8080)]),
        (V6_ONLY, "127.0.0.1", []),
        (Ways(ip="nat", ip6="nat", default="192.0.2.1", listens6=True), "", [("192.0.2.1", 8080)]),
        (Ways(ip="nat", ip6="nat", default="2001:db8::1", listens6=True), "", [("2001:db8::1", 8080)]),
        (Ways(ip="nat", ip6="nat", default="127.0.0.1", listens6=True), "::1", [("::1", 8080)]),
        (Ways(ip="routed", ip6="routed", listens6=True), "", [("0.0.0.0", 0), ("::", 0)]),
        (Ways(ip="nat", ip6="routed", listens6=True), "", [("0.0.0.0", 8080), ("::", 0)]),
        (Ways(ip="routed", ip6="nat", listens6=True), "", [("::", 8080), ("0.0.0.0", 0)]),
        (Ways(ip="routed", listens6=True), "", [("0.0.0.0", 0)]),
        (Ways(ip="nat-unprotected", listens6=True), "", [("0.0.0.0", 8080), ("::", 8080)]),
    ],
    ids=str,
)
def test_where_a_port_is_published(ways: Ways, host_ip: str, expected: list[tuple[str, int]]) -> None:
    assert taken(Host(), PortWish(80, "tcp", host_ip, 8080, 8080), ways=ways) == expected


def test_a_port_that_is_taken_in_one_family_is_taken() -> None:
    host = Host(8080, family=6)
    with pytest.raises(KernelRefused):
        taken(host, WEB, ways=DUAL)
    assert host.taken == {(6, 8080)}, "and the other family's is free again"


def test_a_range_goes_on_where_one_family_s_port_is_taken() -> None:
    asked = PortWish(80, "tcp", "", 8080, 8090)
    assert taken(Host(8080, family=6), asked, ways=DUAL) == [("0.0.0.0", 8081), ("::", 8081)]


def test_a_chosen_port_has_the_same_number_in_both_families() -> None:
    assert taken(Host(32768, family=6), ANY, ways=DUAL) == [("0.0.0.0", 32769), ("::", 32769)]


def test_the_relay_speaks_no_sctp() -> None:
    asked = PortWish(9, "sctp", "", 9, 9)
    assert taken(Host(), asked, ways=V4_ONLY) == [("0.0.0.0", 9)]
    assert taken(Host(), asked, ways=DUAL) == [("0.0.0.0", 9), ("::", 9)]


# ---------------------------------------------------------------------- a way that changes while the container runs


def settled(host: Host, before: list[tuple[str, int]], ways: Ways, *asked: PortWish) -> list[tuple[str, int]]:
    had = [PublishedPort(host_ip=ip, host_port=port, container_port=80, protocol="tcp") for ip, port in before]
    host.taken |= {(6 if ":" in p.host_ip else 4, p.host_port) for p in had}
    ports = asyncio.run(settle(host, had, list(asked), ways))  # type: ignore[arg-type]
    return [(p.host_ip, p.host_port) for p in ports]


def test_ports_that_fit_are_kept() -> None:
    before = [("0.0.0.0", 40000), ("::", 40000)]
    assert settled(Host(), before, DUAL, ANY) == before
    assert settled(Host(), before, V4_ONLY, ANY) == before


def test_one_more_address_gets_the_same_number() -> None:
    assert settled(Host(), [("0.0.0.0", 40000)], DUAL, ANY) == [("0.0.0.0", 40000), ("::", 40000)]


def test_ports_of_the_host_come_and_go_with_the_mode() -> None:
    routed = Ways(ip="routed", listens6=True)
    assert settled(Host(), [("0.0.0.0", 8080), ("::", 8080)], routed, WEB) == [("0.0.0.0", 0)]
    assert settled(Host(), [("0.0.0.0", 0)], V4_ONLY, WEB) == [("0.0.0.0", 8080), ("::", 8080)]


def test_two_wishes_for_one_port_keep_their_own() -> None:
    other = PortWish(80, "tcp", "", 8081, 8081)
    before = [("0.0.0.0", 8080), ("::", 8080), ("0.0.0.0", 8081), ("::", 8081)]
    assert settled(Host(), before, DUAL, WEB, other) == before
    any_two = [("0.0.0.0", 40000), ("::", 40000), ("0.0.0.0", 40001), ("::", 40001)]
    assert settled(Host(), any_two, DUAL, ANY, ANY) == any_two
