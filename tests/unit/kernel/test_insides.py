"""What happens inside sandboxes, as the kernel's messages tell it."""

from __future__ import annotations

import struct

from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from netengine.kernel.insides import HERE, Change, route_changes
from netengine.kernel.resources import GRAVE_GROUP

NEWLINK, DELLINK = 16, 17


def link(kind: int, name: str, *, flags: int = 1, group: int = 0) -> bytes:
    message = ifinfmsg()
    message["index"], message["flags"] = 7, flags
    message["attrs"] = [
        ("IFLA_IFNAME", name),
        ("IFLA_ADDRESS", "02:00:00:00:00:02"),
        ("IFLA_MTU", 1500),
        ("IFLA_GROUP", group),
        ("IFLA_LINK_NETNSID", 0),
    ]
    message.encode()
    return struct.pack("=IH", len(message.data), kind) + bytes(message.data[6:])


def test_a_link_is_told_as_it_is_now() -> None:
    told = list(route_changes(link(NEWLINK, "eth0") + link(DELLINK, "eth1"), 3))
    assert told == [
        Change(3, "link", "eth0", up=True, mtu=1500, mac="02:00:00:00:00:02", paired=True, index=7),
        Change(3, "link", "eth1", up=False, mtu=1500, mac="02:00:00:00:00:02", paired=True, index=7),
    ]


def test_links_of_the_host_are_heard_elsewhere() -> None:
    assert list(route_changes(link(NEWLINK, "veth1"), HERE)) == []


def test_what_we_took_out_of_use_makes_nobody_look() -> None:
    """It is renamed and deleted a moment later. Taken for a loss, each disconnect would cost a look at every link there is."""
    buried = link(NEWLINK, "xveth1", flags=0, group=GRAVE_GROUP) + link(DELLINK, "xveth1", flags=0, group=GRAVE_GROUP)
    assert list(route_changes(buried, 3)) == []
