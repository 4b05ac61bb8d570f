"""What becomes nft text, and how our table is read back. No handle is opened here."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netengine.kernel import nftables, ruleset
from netengine.kernel.nftables import commands, element_text, is_intact, read_elements
from netengine.kernel.resources import Element, TableFamily

MAC = "02:42:0a:00:00:02"
PORT = Element("ip", "ports", ("tcp", "8080"), ("172.18.0.2", "80"))
EXAMPLES = {
    "bridges": (Element("ip", "bridges", ("docker0",)), '"docker0"'),
    "internal": (Element("ip", "internal", ("br-1",)), '"br-1"'),
    "sealed": (Element("inet", "sealed", ("br-1",)), '"br-1"'),
    "sources": (Element("ip", "sources", ("br-1",), ("192.0.2.1",)), '"br-1" : 192.0.2.1'),
    "trusted": (Element("ip", "trusted", ("eth0", "172.18.0.0/16")), '"eth0" . 172.18.0.0/16'),
    "unprotected": (Element("ip", "unprotected", ("br-1",)), '"br-1"'),
    "routed": (Element("ip", "routed", ("br-1",)), '"br-1"'),
    "open": (Element("ip", "open", ("172.18.0.2", "tcp", "80")), "172.18.0.2 . tcp . 80"),
    "masquerading": (Element("ip", "masquerading", ("br-1",)), '"br-1"'),
    "pairs": (Element("ip", "pairs", ("br-1", "br-1"), ("accept",)), '"br-1" . "br-1" : accept'),
    "hairpins": (Element("ip", "hairpins", ("br-1", "172.18.0.0/16")), '"br-1" . 172.18.0.0/16'),
    "subnets": (Element("ip", "subnets", ("172.18.0.0/16",)), "172.18.0.0/16"),
    "ports": (PORT, "tcp . 8080 : 172.18.0.2 . 80"),
    "address-ports": (
        Element("ip", "address-ports", ("127.0.0.1", "udp", "53"), ("172.18.0.2", "53")),
        "127.0.0.1 . udp . 53 : 172.18.0.2 . 53",
    ),
    "published": (Element("ip", "published", ("172.18.0.2", "sctp", "80")), "172.18.0.2 . sctp . 80"),
    "links": (
        Element("ip", "links", ("docker0", "172.17.0.3", "172.17.0.2", "tcp", "80")),
        '"docker0" . 172.17.0.3 . 172.17.0.2 . tcp . 80',
    ),
    "policy-gate": (Element("ip", "policy-gate", ("ip",), ("jump policies",)), "ip : jump policies"),
    **{
        f"policy-{source}-{target}": (
            Element("ip", f"policy-{source}-{target}", ("10.0.0.2/32", "0.0.0.0/0", "7-255", "80-90"), ("drop",)),
            "10.0.0.2/32 . 0.0.0.0/0 . 7-255 . 80-90 : drop",
        )
        for source, target in ruleset.POLICY_ENDS
    },
    "strangers": (Element("ip", "strangers", ("ip",), ("drop",)), "ip : drop"),
    "guarded": (Element("bridge", "guarded", ("veth1",)), '"veth1"'),
    "stations": (Element("bridge", "stations", ("veth1", MAC)), f'"veth1" . {MAC}'),
    "owners": (Element("bridge", "owners", ("veth1", MAC, "10.0.0.2")), f'"veth1" . {MAC} . 10.0.0.2'),
    "owners6": (Element("bridge", "owners6", ("veth1", MAC, "fd00::2")), f'"veth1" . {MAC} . fd00::2'),
    "targets": (
        Element("bridge", "targets", ("veth1", "fd00::2")),
        '"veth1" . 0xfd000000000000000000000000000002',
    ),
}


@pytest.mark.parametrize("name", sorted(ruleset.NAMES))
def test_an_element_of_each_set_and_map_as_text(name: str) -> None:
    element, text = EXAMPLES[name]
    assert element_text(element) == text


# What one part of an element may look like once it is text. Nothing here can end a command or open a block.
SAFE_PART = re.compile(
    r'"[^\s"/\\]{1,15}"|[0-9a-fA-F.:]+(/[0-9]{1,3})?|0x[0-9a-f]{32}|tcp|udp|sctp|icmp|accept|drop|ip6?|jump policies'
    r"|[0-9]+(-[0-9]+)?"
)
hostile = st.one_of(
    st.text(),
    st.sampled_from(
        [
            'x" }; flush ruleset; #',
            "80 }",
            "accept\nflush ruleset",
            "1.2.3.4; drop",
            "٣",
            "0x50",
            "080",
            "1.2.3.4/24",
            "$x",
            "fe80::1%x }; flush ruleset #",
            "fe80::1%eth0",
        ]
    ),
    st.sampled_from(["br0", "10.0.0.1", "10.0.0.0/8", "80", "tcp", "accept", "ip", "::1", "02:42:0a:00:00:02"]),
    st.text('"\\;{}#$\x01a', min_size=1, max_size=15),
    st.from_regex(r"[\"'{};#\n\\$ a-z0-9./-]{1,20}", fullmatch=True),
)


@given(
    st.sampled_from([(f, c) for f in ruleset.FAMILIES for c in ruleset.containers(f)]),
    st.data(),
)
def test_nothing_unchecked_gets_into_a_rule(place: tuple[TableFamily, ruleset.Container], data: st.DataObject) -> None:
    family, container = place
    parts = data.draw(st.tuples(*[hostile for _ in container.key]))
    value = data.draw(st.tuples(*[hostile for _ in container.value]))
    element = Element(family, container.name, parts, value)
    try:
        text = element_text(element)
    except ValueError:
        return
    pieces = [piece for side in text.split(" : ") for piece in side.split(" . ")]
    assert len(pieces) == len(container.key) + len(container.value)
    assert all(SAFE_PART.fullmatch(piece) for piece in pieces), text


@pytest.mark.parametrize(
    "element",
    [
        Element("ip", "bridges", ('br0" }; flush ruleset #',)),
        Element("ip", "bridges", ("",)),
        Element("ip", "bridges", ('a"b',)),
        Element("ip", "bridges", ("a\\b",)),
        Element("ip", "bridges", ("a\x01b",)),
        Element("ip", "bridges", ("a" * 16,)),
        Element("ip", "bridges", ("a/b",)),
        Element("ip", "ports", ("tcp", "0"), ("10.0.0.2", "80")),
        Element("ip", "ports", ("tcp", "65536"), ("10.0.0.2", "80")),
        Element("ip", "ports", ("tcp", "٨٠"), ("10.0.0.2", "80")),
        Element("ip", "ports", ("icmp", "80"), ("10.0.0.2", "80")),
        Element("ip", "ports", ("tcp", "80"), ("example.org", "80")),
        Element("ip", "pairs", ("br0", "br1"), ("jump evil",)),
        Element("ip", "subnets", ("10.0.0.1/24",)),
        Element("ip", "strangers", ("arp",), ("drop",)),
        Element("ip", "strangers", ("ip6",), ("drop",)),
        Element("ip", "subnets", ("fd00::/64",)),
        Element("ip6", "subnets", ("10.0.0.0/24",)),
        Element("ip6", "ports", ("tcp", "80"), ("10.0.0.2", "80")),
        Element("ip6", "subnets", ("fd00::1/64",)),
        Element("bridge", "stations", ("veth1", "02:42:0a:00:00")),
        Element("bridge", "stations", ("veth1", "02:42:0A:00:00:02 }")),
        Element("bridge", "owners", ("veth1", "02:42:0a:00:00:02", "fd00::2")),
        Element("bridge", "owners6", ("veth1", "02:42:0a:00:00:02", "fe80::1%eth0 }")),
        Element("bridge", "targets", ("veth1", "0x1")),
        Element("ip6", "address-ports", ("fe80::1%x }; flush ruleset #", "tcp", "80"), ("fd00::2", "80")),
    ],
    ids=str,
)
def test_a_value_that_is_not_of_its_kind_is_refused(element: Element) -> None:
    with pytest.raises(ValueError):
        element_text(element)


def test_a_map_element_needs_its_value_and_a_set_element_has_none() -> None:
    with pytest.raises(ValueError, match="form"):
        element_text(Element("ip", "ports", ("tcp", "80")))
    with pytest.raises(ValueError, match="form"):
        element_text(Element("ip", "bridges", ("br0",), ("accept",)))


def test_a_set_that_is_not_ours_cannot_be_named() -> None:
    with pytest.raises(KeyError):
        element_text(Element("ip", "ports } ; flush ruleset", ("br0",)))


def test_one_command_for_all_elements_of_one_set() -> None:
    other = Element("ip", "ports", ("udp", "53"), ("172.18.0.2", "53"))
    bridge = Element("ip", "bridges", ("br0",))
    assert commands("add", [PORT, bridge, other]) == [
        "add element ip netengine ports { tcp . 8080 : 172.18.0.2 . 80, udp . 53 : 172.18.0.2 . 53 }",
        'add element ip netengine bridges { "br0" }',
    ]


def test_a_deletion_names_the_key_alone() -> None:
    assert commands("delete", [PORT]) == ["delete element ip netengine ports { tcp . 8080 }"]


def test_many_elements_are_cut_into_several_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nftables, "_CHUNK", 2)
    elements = [Element("ip", "bridges", (f"br{n}",)) for n in range(5)]
    assert [line.count('"br') for line in commands("add", elements)] == [2, 2, 1]


# ---------------------------------------------------------------------- reading back

# As libnftables 1.0.6 lists them in JSON.
LISTED = {
    "bridges": ["docker0"],
    "internal": ["br-1"],
    "sealed": ["br-1"],
    "sources": [["br-1", "192.0.2.1"]],
    "trusted": [{"concat": ["eth0", {"prefix": {"addr": "172.18.0.0", "len": 16}}]}],
    "unprotected": ["br-1"],
    "routed": ["br-1"],
    "open": [{"concat": ["172.18.0.2", "tcp", 80]}],
    "masquerading": [{"elem": {"val": "br-1", "comment": "somebody's words"}}],
    "pairs": [[{"concat": ["br-1", "br-1"]}, {"accept": None}]],
    "hairpins": [{"concat": ["br-1", {"prefix": {"addr": "172.18.0.0", "len": 16}}]}],
    "subnets": [{"prefix": {"addr": "172.18.0.0", "len": 16}}],
    "ports": [[{"concat": ["tcp", 8080]}, {"concat": ["172.18.0.2", 80]}]],
    "address-ports": [[{"concat": ["127.0.0.1", "udp", 53]}, {"concat": ["172.18.0.2", 53]}]],
    "published": [{"concat": ["172.18.0.2", "sctp", 80]}],
    "links": [{"concat": ["docker0", "172.17.0.3", "172.17.0.2", "tcp", 80]}],
    "strangers": [["ip", {"drop": None}]],
}


@pytest.mark.parametrize("name", sorted(LISTED))
def test_an_element_is_read_back_as_it_was_written(name: str) -> None:
    kind = "map" if ruleset.container(name).value else "set"
    expected, _ = EXAMPLES[name]
    if name == "masquerading":
        expected = Element("ip", "masquerading", ("br-1",))
    assert read_elements([{kind: {"name": name, "elem": LISTED[name]}}], expected.family) == {expected}


def test_the_prefix_of_one_address_is_read_back_as_such_in_both_families() -> None:
    assert read_elements([{"set": {"name": "subnets", "elem": ["10.0.0.1"]}}], "ip") == {
        Element("ip", "subnets", ("10.0.0.1/32",))
    }
    assert read_elements([{"set": {"name": "subnets", "elem": ["fd00::1"]}}], "ip6") == {
        Element("ip6", "subnets", ("fd00::1/128",))
    }


def test_an_ipv6_port_as_text() -> None:
    element = Element("ip6", "address-ports", ("2001:DB8::1", "tcp", "80"), ("fd00::0:2", "8080"))
    assert element_text(element) == "2001:db8::1 . tcp . 80 : fd00::2 . 8080"


def test_sets_that_somebody_added_to_our_table_are_not_read() -> None:
    assert read_elements([{"set": {"name": "somebody-s", "elem": ["x"]}}], "ip") == set()


def listing() -> list[dict[str, object]]:
    """Our table as it is listed, elements and all but names left out."""
    names, rules = ruleset.signature("ip")
    sets: list[dict[str, object]] = [
        {"map" if name in ruleset.NAMES and ruleset.container(name).value else "set": {"name": name}}
        for name in names & ruleset.NAMES
    ]
    chains: list[dict[str, object]] = [{"chain": {"name": name}} for name in names - ruleset.NAMES]
    return sets + chains + [{"rule": {"chain": chain}} for chain, count in rules.items() for _ in range(count)]


def test_a_whole_table_is_intact() -> None:
    assert is_intact(listing(), "ip")


@pytest.mark.parametrize("kind", ["set", "map", "chain", "rule"])
def test_a_table_that_lacks_something_is_not_intact(kind: str) -> None:
    objects = listing()
    first = next(o for o in objects if kind in o and o[kind] != {"name": ruleset.USER_CHAIN})
    objects.remove(first)
    assert not is_intact(objects, "ip")


def test_the_user_s_rules_do_not_count() -> None:
    assert is_intact([*listing(), {"rule": {"chain": ruleset.USER_CHAIN}}], "ip")
