"""Netlink attributes as bytes: a length, a type, a value, padded to four bytes. What they mean is their readers' business.

Source: include/uapi/linux/netlink.h (struct nlattr; struct rtattr has the same shape), RFC 3549.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_HEAD = struct.Struct("=HH")  # length with this head, type
_U32 = struct.Struct("=I")
_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER


def packed(kind: int, value: bytes) -> bytes:
    return _HEAD.pack(_HEAD.size + len(value), kind) + value + bytes(-len(value) % 4)


def attributes(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """(type without flags, value) of each attribute from `offset` on, up to the first that cannot be one."""
    while offset + _HEAD.size <= len(data):
        length, kind = _HEAD.unpack_from(data, offset)
        if length < _HEAD.size:
            return
        yield kind & _TYPE_MASK, data[offset + _HEAD.size : offset + length]
        offset += (length + 3) & ~3


def by_type(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The values by their types; of several of one type the first."""
    # A loop of its own: a link has sixty attributes, and links are heard of all the time.
    out: dict[int, bytes] = {}
    size = len(data)
    while offset + 4 <= size:
        length, kind = _HEAD.unpack_from(data, offset)
        if length < 4:
            break
        out.setdefault(kind & _TYPE_MASK, data[offset + 4 : offset + length])
        offset += (length + 3) & ~3
    return out


def text(value: bytes | None) -> str:
    """A name, "" for none."""
    return value.rstrip(b"\0").decode(errors="replace") if value else ""


def u32(value: bytes | None) -> int:
    """A number, 0 for none."""
    return int(_U32.unpack(value)[0]) if value is not None and len(value) == _U32.size else 0
