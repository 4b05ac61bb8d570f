"""What is packed here is, byte for byte, what pyroute2 would have sent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from netengine.kernel import messages, vxlan
from netengine.kernel.request import _ATTRIBUTES, Request, _packed, _Unknown, encode_by_pyroute2
from netengine.kernel.resources import Address, Bridge, Fdb, Neighbour, Route, Veth, Vxlan

VETH = Veth("veth1234567", "br0", "1" * 64, "eth0", "02:00:00:00:00:07", 1400, isolated=True)
VXLAN = Vxlan("vx0", 4096, "192.0.2.1", 4789, "br0", 1450)
FDB = Fdb("vx0", "02:42:0a:00:00:02", "fe80::2", "up0")
MESSAGES: dict[str, Any] = {
    "a veth pair": lambda: messages.veth_add(VETH, 7, 21),
    "a port": lambda: messages.port_up(VETH),
    "a link up": lambda: messages.link_up("eth0"),
    "a link changed": lambda: messages.link_set("eth0", mac="02:00:00:00:00:08", mtu=9000, master=3),
    "a link gone": lambda: messages.link_delete("eth0"),
    "graves": messages.graves_delete,
    "a look at a link": lambda: messages.link_get(name="eth0"),
    "all links": messages.links_dump,
    "an address": lambda: messages.address_add(4, Address("", "eth0", "10.0.0.2/24")),
    "an address of a point-to-point link": lambda: messages.address_add(4, Address("", "eth0", "10.0.0.2/31")),
    "an IPv6 address": lambda: messages.address_add(4, Address("", "eth0", "fd00::2/64")),
    "an address gone": lambda: messages.address_delete(4, Address("", "eth0", "10.0.0.2/24")),
    "all addresses": messages.addresses_dump,
    "a default route": lambda: messages.route_add(4, Route("", "default", "eth0", "10.0.0.1")),
    "a route": lambda: messages.route_add(4, Route("", "10.9.0.0/16", "eth0")),
    "an IPv6 route": lambda: messages.route_delete(4, Route("", "fd01::/64", "eth0", "fd00::1")),
    "a forwarding entry": lambda: vxlan.entry_add(FDB, 9, via=5),
    "a forwarding entry gone": lambda: vxlan.entry_delete(FDB, 9),
    "a forwarding table": lambda: vxlan.entries_dump(9),
    "a neighbour": lambda: vxlan.entry_add(Neighbour("vx0", "10.0.0.2", "02:42:0a:00:00:02"), 9),
    "an IPv6 neighbour": lambda: vxlan.entry_add(Neighbour("vx0", "fd00::2", "02:42:0a:00:00:02"), 9),
    "a neighbour gone": lambda: vxlan.entry_delete(Neighbour("vx0", "fd00::2", "02:42:0a:00:00:02"), 9),
    "all neighbours": lambda: vxlan.neighbours_dump(9),
    "a VXLAN link": lambda: vxlan.link_add(VXLAN),
    "a VXLAN link over IPv6": lambda: vxlan.link_add(replace(VXLAN, local="fe80::1"), 5),
    "a VXLAN port": lambda: vxlan.port_up(VXLAN, 3),
    "a bridge": lambda: messages.bridge_add(Bridge("br0", "02:00:00:00:00:01", 1500, "netengine-br-0")),
}
LEFT_TO_PYROUTE2 = {"a bridge", "a VXLAN link", "a VXLAN link over IPv6"}


@pytest.mark.parametrize("what", MESSAGES)
def test_the_bytes_are_those_of_pyroute2(what: str) -> None:
    ours: Request = MESSAGES[what]()
    theirs = ours.kind()
    for name in (*(field for field, _ in ours.kind.fields), "attrs"):
        try:
            theirs[name] = ours[name]
        except KeyError:
            theirs[name] = 0
    assert ours.encode(5, 77).hex() == encode_by_pyroute2(theirs, ours["header"], 5, 77).hex()


@pytest.mark.parametrize("what", MESSAGES)
def test_the_frequent_ones_are_packed_here(what: str) -> None:
    request: Request = MESSAGES[what]()
    try:
        _packed(request["attrs"], _ATTRIBUTES[request.kind])
        assert what not in LEFT_TO_PYROUTE2
    except _Unknown:
        assert what in LEFT_TO_PYROUTE2
