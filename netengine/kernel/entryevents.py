"""What the kernel tells of forwarding entries and permanent neighbours: which were added, changed or removed, on any link.

A host hears of every neighbour that it looks for; what is of no interest is left out by a filter in the kernel, so that
nobody is woken for it. Decoding is pure; the socket is made for `events.Watch`.

Source: include/uapi/linux/neighbour.h, net/core/neighbour.c, Documentation/networking/filter.rst.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from netengine.kernel.attributes import attributes

GROUPS = 1 << 2  # RTNLGRP_NEIGH

_NEWNEIGH, _DELNEIGH = 28, 29  # RTM_*
_NTF_SELF, _NUD_PERMANENT = 0x02, 0x80
_NDA_DST, _NDA_LLADDR = 1, 2
_HEADER, _NDMSG = struct.Struct("=IHHII"), struct.Struct("=BxxxiHBB")
_TYPE_AT, _FAMILY_AT, _STATE_AT, _FLAGS_AT = 4, 16, 24, 26
_SO_ATTACH_FILTER = 26  # include/uapi/asm-generic/socket.h
_LDB, _LDH, _JEQ, _JSET, _RET = 0x30, 0x28, 0x15, 0x45, 0x06  # linux/filter.h


@dataclass(frozen=True, slots=True)
class EntryTouched:
    """On the interface `index`, the entry for `subject`, a MAC in a forwarding table or else an address, is new or changed, and
    leads to `target` (the address of a host, or a MAC), or it is gone: "" then."""

    index: int
    subject: str
    target: str


def _in_order(value: int) -> int:
    """What a load of the filter, which reads in network order, makes of a number in the host's."""
    return int.from_bytes(struct.pack("=H", value), "big")


# Of a bridge's own table, which learns, nothing; of neighbours the permanent, and whatever is deleted: the kernel does not tell
# what it was. Each line: code, lines to skip if true, if false, value.
_PROGRAM = (
    (_LDB, 0, 0, _FAMILY_AT),
    (_JEQ, 0, 2, socket.AF_BRIDGE),
    (_LDB, 0, 0, _FLAGS_AT),
    (_JSET, 5, 4, _NTF_SELF),
    (_LDH, 0, 0, _TYPE_AT),
    (_JEQ, 3, 0, _in_order(_DELNEIGH)),
    (_LDH, 0, 0, _STATE_AT),
    (_JSET, 1, 0, _in_order(_NUD_PERMANENT)),
    (_RET, 0, 0, 0),
    (_RET, 0, 0, 0xFFFF),
)


def attach_filter(sock: socket.socket) -> None:
    """Let the socket hear what `notices` reads, and no more."""
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in _PROGRAM))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_PROGRAM), ctypes.addressof(code)))


def notices(data: bytes) -> Iterator[EntryTouched]:
    """What a datagram of the group says."""
    offset = 0
    while offset + _HEADER.size + _NDMSG.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            return
        if kind in (_NEWNEIGH, _DELNEIGH):
            yield _notice(kind, data[offset + _HEADER.size : offset + length])
        offset += (length + 3) & ~3


def _notice(kind: int, body: bytes) -> EntryTouched:
    family, index, *_ = _NDMSG.unpack_from(body)
    found = dict(attributes(body, _NDMSG.size))
    mac, address = found.get(_NDA_LLADDR, b"").hex(":"), _address(found.get(_NDA_DST, b""))
    subject, target = (mac, address) if family == socket.AF_BRIDGE else (address, mac)
    return EntryTouched(index, subject, "" if kind == _DELNEIGH else target)


def _address(raw: bytes) -> str:
    if len(raw) not in (4, 16):
        return ""
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)
