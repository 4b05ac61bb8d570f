"""What the kernel tells of forwarding entries and permanent neighbours: which were added, changed or removed, on any link.

A host hears of every neighbour that it looks for; what is of no interest is left out by a filter in the kernel, so that
nobody is woken for it. Decoding is pure; the socket is made for `events.Watch`.

Source: include/uapi/linux/neighbour.h, net/core/neighbour.c, Documentation/networking/filter.rst.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from netengine.kernel import filters
from netengine.kernel.attributes import attributes

GROUPS = 1 << 2  # RTNLGRP_NEIGH

_NEWNEIGH, _DELNEIGH = 28, 29  # RTM_*
_NTF_SELF, _NUD_PERMANENT = 0x02, 0x80
_NDA_DST, _NDA_LLADDR = 1, 2
_HEADER, _NDMSG = struct.Struct("=IHHII"), struct.Struct("=BxxxiHBB")


@dataclass(frozen=True, slots=True)
class EntryTouched:
    """On the interface `index`, the entry for `subject`, a MAC in a forwarding table or else an address, is new or changed, and
    leads to `target` (the address of a host, or a MAC), or it is gone: "" then."""

    index: int
    subject: str
    target: str


# Of a bridge's own table, which learns, nothing; of neighbours the permanent, and whatever is deleted: the kernel does not tell
# what it was.
_FAMILY, _STATE, _FLAGS = 0, 8, 10  # of struct ndmsg, the low byte of the state
UNHEARD = (
    filters.drop(filters.Byte(_FAMILY, socket.AF_BRIDGE), filters.Not(filters.Byte(_FLAGS, mask=_NTF_SELF))),
    filters.drop(
        filters.Not(filters.Byte(_FAMILY, socket.AF_BRIDGE)),
        filters.Type((_NEWNEIGH,)),
        filters.Not(filters.Byte(_STATE + (sys.byteorder == "big"), mask=_NUD_PERMANENT)),
    ),
)
"""What the kernel need not tell."""


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
