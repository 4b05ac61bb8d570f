"""What is read of the kernel's messages is what pyroute2 would have decoded."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from netengine.kernel.seen import Seen

LINK_INFO = [
    ("IFLA_INFO_KIND", "veth"),
    ("IFLA_INFO_SLAVE_KIND", "bridge"),
    ("IFLA_INFO_SLAVE_DATA", {"attrs": [("IFLA_BRPORT_MODE", 1), ("IFLA_BRPORT_ISOLATED", 1)]}),
]


def encoded(kind: type, fields: dict[str, int], attributes: list[tuple[str, Any]]) -> bytes:
    message = kind()
    for name, value in fields.items():
        message[name] = value
    message["attrs"] = attributes
    message.encode()
    return bytes(message.data)


def decoded(kind: type, raw: bytes) -> Any:
    message = kind(raw)
    message.decode()
    return message


@pytest.mark.parametrize(
    ("kind", "fields", "attributes"),
    [
        (
            ifinfmsg,
            {"index": 7, "flags": 1, "ifi_type": 1},
            [
                ("IFLA_IFNAME", "eth0"),
                ("IFLA_ADDRESS", "02:00:00:00:00:01"),
                ("IFLA_MTU", 1500),
                ("IFLA_LINK", 8),
                ("IFLA_MASTER", 3),
                ("IFLA_GROUP", 28261),
                ("IFLA_OPERSTATE", "UP"),
                ("IFLA_TXQLEN", 1000),
            ],
        ),
        (
            ifaddrmsg,
            {"family": 2, "prefixlen": 24, "index": 3},
            [("IFA_ADDRESS", "10.0.0.1"), ("IFA_LOCAL", "10.0.0.1")],
        ),
        (ifaddrmsg, {"family": 10, "prefixlen": 64, "index": 3}, [("IFA_ADDRESS", "fd00::1"), ("IFA_FLAGS", 2)]),
        (
            rtmsg,
            {"family": 2, "dst_len": 16, "proto": 110, "table": 254},
            [
                ("RTA_DST", "10.1.0.0"),
                ("RTA_OIF", 5),
                ("RTA_GATEWAY", "10.0.0.1"),
                ("RTA_TABLE", 254),
                ("RTA_PRIORITY", 9),
            ],
        ),
        (rtmsg, {"family": 10, "dst_len": 64}, [("RTA_DST", "fd01::"), ("RTA_GATEWAY", "fe80::1"), ("RTA_PREF", 1)]),
        (
            ndmsg,
            {"family": 2, "ifindex": 4, "state": 128},
            [("NDA_DST", "10.0.0.9"), ("NDA_LLADDR", "02:00:00:00:00:09")],
        ),
    ],
)
def test_fields_and_attributes_are_pyroute2_s(
    kind: type, fields: dict[str, int], attributes: list[tuple[str, Any]]
) -> None:
    raw = encoded(kind, fields, attributes)
    seen, whole = Seen(kind, raw), decoded(kind, raw)
    for name in fields:
        assert seen[name] == whole[name] == fields[name]
    for name, value in attributes:
        assert seen.get_attr(name) == whole.get_attr(name) == value
        assert seen.get_attrs(name) == [value]


def test_what_is_not_there_is_the_default() -> None:
    seen = Seen(ifinfmsg, encoded(ifinfmsg, {"index": 1}, [("IFLA_IFNAME", "lo")]))
    assert seen.get_attr("IFLA_MASTER") is None and seen.get_attr("IFLA_MASTER", 0) == 0
    assert seen.get_attr("IFLA_TXQLEN", 5) == 5
    assert seen.get_attr("IFLA_LINKINFO") is None and seen.get_attr("IFLA_PROP_LIST") is None
    with pytest.raises(KeyError):
        seen["nothing"]


def test_nested_attributes() -> None:
    raw = encoded(ifinfmsg, {"index": 1}, [("IFLA_IFNAME", "v"), ("IFLA_LINKINFO", {"attrs": LINK_INFO})])
    info = Seen(ifinfmsg, raw).get_attr("IFLA_LINKINFO")
    assert info.get_attr("IFLA_INFO_KIND") == "veth"
    port = info.get_attr("IFLA_INFO_SLAVE_DATA")
    assert port.get_attr("IFLA_BRPORT_ISOLATED") == 1 and port.get_attr("IFLA_BRPORT_STATE") is None
    names = {"attrs": [("IFLA_ALT_IFNAME", "one"), ("IFLA_ALT_IFNAME", "two")]}
    raw = encoded(ifinfmsg, {"index": 1}, [("IFLA_PROP_LIST", names)])
    assert Seen(ifinfmsg, raw).get_attr("IFLA_PROP_LIST").get_attrs("IFLA_ALT_IFNAME") == ["one", "two"]


def test_what_a_kind_of_link_says_of_itself_is_left_to_pyroute2() -> None:
    info = {"attrs": [("IFLA_INFO_KIND", "vxlan"), ("IFLA_INFO_DATA", {"attrs": [("IFLA_VXLAN_ID", 4096)]})]}
    seen = Seen(ifinfmsg, encoded(ifinfmsg, {"index": 1}, [("IFLA_LINKINFO", info)]))
    assert seen.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_DATA").get_attr("IFLA_VXLAN_ID") == 4096


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_make_it_read_beyond_the_end_or_without_end(tail: bytes) -> None:
    header = struct.pack("=IHHII", 32 + len(tail), 16, 0, 1, 0) + struct.pack("=BxHiII", 0, 1, 1, 0, 0)
    seen = Seen(ifinfmsg, header + tail)
    for name in ("IFLA_MTU", "IFLA_IFNAME", "IFLA_ADDRESS"):
        seen.get_attr(name)
    info = seen.get_attr("IFLA_LINKINFO")
    if info is not None:
        info.get_attr("IFLA_INFO_KIND")
