"""What the kernel says of its objects: rtnetlink messages, read as far as somebody asks.

A host with 300 sandboxes has a thousand links, and a start reads them all. pyroute2 decodes every attribute of every message
(half a millisecond and 23 kB a link); here the bytes are kept, and an attribute is read when it is asked for. The few that are
asked of every object are read here; any other is left to pyroute2, so each name of its message classes works.

Source: include/uapi/linux/{netlink,if_link,if_addr,rtnetlink,neighbour}.h. No sockets here.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from netengine.kernel.attributes import attributes

Message = Any
"""A pyroute2 message: nlmsg and its subclasses carry no types."""

_Known = Mapping[str, tuple[int, Callable[[bytes], Any]]]
"""Number and reader of attributes by pyroute2's name for them."""

_HEADER = 16  # sizeof(struct nlmsghdr)
_U32 = struct.Struct("=I")
_STATES = ("UNKNOWN", "NOTPRESENT", "DOWN", "LOWERLAYERDOWN", "TESTING", "DORMANT", "UP")  # RFC 2863, IF_OPER_* of if.h


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="replace")


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, "little" if _U32.pack(1)[0] else "big")


def _mac(raw: bytes) -> str:
    return raw.hex(":")


def _state(raw: bytes) -> str:
    return _STATES[raw[0]] if raw[0] < len(_STATES) else str(raw[0])


def _address(raw: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)


@dataclass(frozen=True, slots=True)
class _Shape:
    """How a kind of message begins, and the attributes that are read here."""

    header: struct.Struct
    fields: tuple[str, ...]
    attributes: _Known


_SHAPES: Mapping[type, _Shape] = {
    ifinfmsg: _Shape(
        struct.Struct("=BxHiII"),
        ("family", "ifi_type", "index", "flags", "change"),
        {
            "IFLA_ADDRESS": (1, _mac),
            "IFLA_IFNAME": (3, _text),
            "IFLA_MTU": (4, _number),
            "IFLA_LINK": (5, _number),
            "IFLA_QDISC": (6, _text),
            "IFLA_MASTER": (10, _number),
            "IFLA_OPERSTATE": (16, _state),
            "IFLA_GROUP": (27, _number),
            "IFLA_LINK_NETNSID": (37, _number),
        },
    ),
    ifaddrmsg: _Shape(
        struct.Struct("=BBBBI"),
        ("family", "prefixlen", "flags", "scope", "index"),
        {"IFA_ADDRESS": (1, _address), "IFA_LOCAL": (2, _address), "IFA_PROTO": (11, _number)},
    ),
    rtmsg: _Shape(
        struct.Struct("=BBBBBBBBI"),
        ("family", "dst_len", "src_len", "tos", "table", "proto", "scope", "type", "flags"),
        {
            "RTA_DST": (1, _address),
            "RTA_OIF": (4, _number),
            "RTA_GATEWAY": (5, _address),
            "RTA_PRIORITY": (6, _number),
            "RTA_TABLE": (15, _number),
        },
    ),
    ndmsg: _Shape(
        struct.Struct("=BxxxiHBB"),
        ("family", "ifindex", "state", "flags", "ndm_type"),
        {"NDA_DST": (1, _address), "NDA_LLADDR": (2, _mac), "NDA_IFINDEX": (8, _number)},
    ),
}
_LINK_INFO, _PROPERTIES = 18, 52  # IFLA_LINKINFO, IFLA_PROP_LIST
_NESTED: Mapping[str, tuple[int, _Known]] = {
    "IFLA_LINKINFO": (_LINK_INFO, {"IFLA_INFO_KIND": (1, _text), "IFLA_INFO_SLAVE_KIND": (4, _text)}),
    "IFLA_PROP_LIST": (_PROPERTIES, {"IFLA_ALT_IFNAME": (53, _text)}),
}
_BRIDGE_PORT = {"IFLA_BRPORT_MODE": (4, _number), "IFLA_BRPORT_ISOLATED": (33, _number)}


class Nest:
    """The attributes of a message or of a nested attribute, found by their pyroute2 names."""

    __slots__ = ("_known", "_raw", "_rest")

    def __init__(self, raw: bytes, known: _Known, rest: Callable[[], Message]) -> None:
        """`rest` decodes all of it by pyroute2, for what is not `known`."""
        self._raw = raw
        self._known = known
        self._rest = rest

    def get_attrs(self, name: str) -> list[Any]:
        found = self._known.get(name)
        if found is None:
            return list(self._rest().get_attrs(name))
        number, read = found
        return [read(value) for kind, value in attributes(self._raw) if kind == number]

    def get_attr(self, name: str, default: Any = None) -> Any:
        """The first attribute of that name; a nested one has these two methods too."""
        found = self._known.get(name)
        if found is not None:
            number, read = found
            return next((read(value) for kind, value in attributes(self._raw) if kind == number), default)
        if name == "IFLA_INFO_SLAVE_DATA" and self.get_attr("IFLA_INFO_SLAVE_KIND") == "bridge":
            return self._nest(name, 5, _BRIDGE_PORT)
        if name in _NESTED:
            return self._nest(name, *_NESTED[name])
        value = self._rest().get_attr(name)
        return default if value is None else value

    def _nest(self, name: str, number: int, known: _Known) -> Nest | None:
        raw = next((value for kind, value in attributes(self._raw) if kind == number), None)
        return None if raw is None else Nest(raw, known, lambda: self._rest().get_attr(name))


class Seen(Nest):
    """One object: its fields by `[...]`, its attributes by `get_attr`."""

    __slots__ = ("_fields",)

    def __init__(self, kind: type, message: bytes) -> None:
        """`kind` is a class of pyroute2, `message` a whole one, header included."""
        shape = _SHAPES.get(kind)
        if shape is None:
            decoded = _decoded(kind, message)
            self._fields: Mapping[str, Any] = decoded
            super().__init__(b"", {}, lambda: decoded)
        else:
            self._fields = dict(zip(shape.fields, shape.header.unpack_from(message, _HEADER), strict=True))
            rest = message[_HEADER + shape.header.size :]
            super().__init__(rest, shape.attributes, lambda: _decoded(kind, message))

    def __getitem__(self, field: str) -> Any:
        return self._fields[field]


def _decoded(kind: type, message: bytes) -> Message:
    decoded = kind(message)
    decoded.decode()
    return decoded
