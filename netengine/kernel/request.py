"""rtnetlink requests, packed by us where they are many, by pyroute2 where they are rare.

pyroute2 needs half a millisecond to encode the message that makes a veth pair, as long as the kernel needs to carry it out. A
`Request` is filled like one of pyroute2's messages and has the same names; what it holds is packed directly if all of its
attributes are known here, and handed to pyroute2 if not. Both give the same bytes (tests/unit/kernel/test_request.py).

Source: include/uapi/linux/{netlink,if_link,if_addr,rtnetlink,neighbour,veth}.h. No sockets here.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from netengine.kernel.attributes import packed

Attributes = Sequence[tuple[str, Any]]

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence number, port id
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg
_U32 = struct.Struct("=I")

_SHAPES: Mapping[type, tuple[struct.Struct, tuple[str, ...]]] = {
    ifinfmsg: (_LINK, ("family", "ifi_type", "index", "flags", "change")),
    ifaddrmsg: (struct.Struct("=BBBBI"), ("family", "prefixlen", "flags", "scope", "index")),
    rtmsg: (
        struct.Struct("=BBBBBBBBI"),
        ("family", "dst_len", "src_len", "tos", "table", "proto", "scope", "type", "flags"),
    ),
    ndmsg: (struct.Struct("=BxxxiHBB"), ("family", "ifindex", "state", "flags", "ndm_type")),
}


class Fixed(dict[str, Any]):
    """A nested attribute that is the same in many messages: it is packed once."""

    packed: bytes | None = None


class _Unknown(Exception):
    """An attribute that only pyroute2 can encode."""


def _text(value: str) -> bytes:
    return value.encode() + b"\0"


def _u8(value: int) -> bytes:
    return bytes((value,))


def _u32(value: int) -> bytes:
    return _U32.pack(value)


def _mac(value: str) -> bytes:
    return bytes.fromhex(value.replace(":", ""))


def _address(value: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in value else socket.AF_INET, value)


def _nested(known: _Known) -> Callable[[dict[str, Any]], bytes]:
    return lambda value: _packed(value["attrs"], known)


def _peer(value: dict[str, Any]) -> bytes:
    return _LINK.pack(0, 0, 0, 0, 0) + _packed(value["attrs"], _LINK_ATTRIBUTES)


def _link_info(value: dict[str, Any]) -> bytes:
    """What follows depends on the kind that comes first."""
    given = dict(value["attrs"])
    known = dict(_LINK_INFO)
    if given.get("IFLA_INFO_KIND") == "veth":
        known["IFLA_INFO_DATA"] = (2, _nested({"VETH_INFO_PEER": (1, _peer)}))
    if given.get("IFLA_INFO_SLAVE_KIND") == "bridge":
        known["IFLA_INFO_SLAVE_DATA"] = (5, _nested(_BRIDGE_PORT))
    return _packed(value["attrs"], known)


_Known = Mapping[str, tuple[int, Callable[[Any], bytes]]]
"""Number and packer of attributes by pyroute2's name for them."""

_LINK_INFO: _Known = {"IFLA_INFO_KIND": (1, _text), "IFLA_INFO_SLAVE_KIND": (4, _text)}
_BRIDGE_PORT: _Known = {"IFLA_BRPORT_MODE": (4, _u8), "IFLA_BRPORT_ISOLATED": (33, _u8)}
_LINK_ATTRIBUTES: _Known = {
    "IFLA_ADDRESS": (1, _mac),
    "IFLA_IFNAME": (3, _text),
    "IFLA_MTU": (4, _u32),
    "IFLA_LINK": (5, _u32),
    "IFLA_MASTER": (10, _u32),
    "IFLA_LINKINFO": (18, _link_info),
    "IFLA_AF_SPEC": (26, _nested({"AF_INET6": (10, _nested({"IFLA_INET6_ADDR_GEN_MODE": (8, _u8)}))})),
    "IFLA_GROUP": (27, _u32),
    "IFLA_NET_NS_FD": (28, _u32),
    "IFLA_EXT_MASK": (29, _u32),
    "IFLA_ALT_IFNAME": (53, _text),
}
_ATTRIBUTES: Mapping[type, _Known] = {
    ifinfmsg: _LINK_ATTRIBUTES,
    ifaddrmsg: {
        "IFA_ADDRESS": (1, _address),
        "IFA_LOCAL": (2, _address),
        "IFA_BROADCAST": (4, _address),
        "IFA_FLAGS": (8, _u32),
        "IFA_PROTO": (11, _u8),
    },
    rtmsg: {
        "RTA_DST": (1, _address),
        "RTA_OIF": (4, _u32),
        "RTA_GATEWAY": (5, _address),
        "RTA_PRIORITY": (6, _u32),
        "RTA_PREFSRC": (7, _address),
        "RTA_TABLE": (15, _u32),
    },
    ndmsg: {
        "NDA_DST": (1, _address),
        "NDA_LLADDR": (2, _mac),
        "NDA_IFINDEX": (8, _u32),
        "NDA_PROTOCOL": (12, _u8),
    },
}


class Request:
    """A message to be sent: its fields by `[...]`, `header` among them, and `attrs`, a list of names and values."""

    __slots__ = ("_fields", "kind")

    def __init__(self, kind: type) -> None:
        """`kind` is the pyroute2 class that it has the fields and names of: ifinfmsg, ifaddrmsg, rtmsg or ndmsg."""
        self.kind = kind
        self._fields: dict[str, Any] = {"header": {}, "attrs": []}

    def __getitem__(self, field: str) -> Any:
        return self._fields[field]

    def __setitem__(self, field: str, value: Any) -> None:
        self._fields[field] = value

    def encode(self, flags: int, sequence: int) -> bytes:
        """The whole message, `flags` added to its own."""
        header = self._fields["header"]
        shape, names = _SHAPES[self.kind]
        try:
            attributes = _packed(self._fields["attrs"], _ATTRIBUTES[self.kind])
        except _Unknown:
            return self._encode_by_pyroute2(flags, sequence)
        body = shape.pack(*[self._fields.get(name, 0) for name in names]) + attributes
        length = _HEADER.size + len(body)
        return _HEADER.pack(length, header["type"], header.get("flags", 0) | flags, sequence, 0) + body

    def _encode_by_pyroute2(self, flags: int, sequence: int) -> bytes:
        message = self.kind()
        for name, value in self._fields.items():
            if name != "header":
                message[name] = value
        return encode_by_pyroute2(message, self._fields["header"], flags, sequence)


def encode_by_pyroute2(message: Any, header: dict[str, int], flags: int, sequence: int) -> bytes:
    """The bytes of one of pyroute2's own messages."""
    message["header"]["type"] = header["type"]
    message["header"]["flags"] = header.get("flags", 0) | flags
    message["header"]["sequence_number"] = sequence
    message.reset()
    message.encode()
    return bytes(message.data)


def _packed(attributes: Attributes, known: _Known) -> bytes:
    out = bytearray()
    for name, value in attributes:
        try:
            number, pack = known[name]
        except KeyError:
            raise _Unknown(name) from None
        if isinstance(value, Fixed):
            if value.packed is None:
                value.packed = packed(number, pack(value))
            out += value.packed
        else:
            out += packed(number, pack(value))
    return bytes(out)
