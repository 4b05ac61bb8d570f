"""Batches of nftables messages as bytes, one transaction each, and the socket that carries them out. What the messages are
about is for `namerules` and `elements`; whatever is not sent thousands of times libnftables does (nftables.py).

Source: include/uapi/linux/netfilter/{nf_tables,nfnetlink}.h, net/netfilter/nfnetlink.c.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress

from netengine.kernel.attributes import packed
from netengine.kernel.descriptors import moved_up

NESTED = 0x8000
CREATE, EXCL, APPEND, ACK = 0x400, 0x200, 0x800, 0x4

_NETFILTER = 12  # NETLINK_NETFILTER
_NFTABLES, _BATCH_BEGIN, _BATCH_END = 10, 0x10, 0x11  # NFNL_SUBSYS_NFTABLES, NFNL_MSG_BATCH_*
_REQUEST = 0x1
_ERROR = 2  # NLMSG_ERROR
_MOST = 1 << 14
_HEADER, _NFGENMSG = struct.Struct("=IHHII"), struct.Struct("=BBH")


def open_socket() -> socket.socket:
    """For transactions in the namespace of the calling thread, whichever thread asks for them then."""
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    return moved_up(socket.socket(socket.AF_NETLINK, kind, _NETFILTER))


def carry_out(sock: socket.socket, data: bytes) -> None:
    """Send a batch whose last message has ACK. Raises OSError of the first message that is refused; nothing is changed then."""
    sock.send(data)
    # It is carried out while it is sent: one answer for the whole, or those to the messages that were refused.
    while (number := _first_error(sock.recv(_MOST))) is None:
        pass
    if number:
        with suppress(BlockingIOError):
            while True:
                sock.recv(_MOST)
        raise OSError(number, os.strerror(number))


def _first_error(answer: bytes) -> int | None:
    """0 for an acknowledgement, None without either."""
    offset = 0
    while offset + _HEADER.size + 4 <= len(answer):
        length, kind, *_ = _HEADER.unpack_from(answer, offset)
        if kind == _ERROR:
            return -int(struct.unpack_from("=i", answer, offset + _HEADER.size)[0])
        offset += max((length + 3) & ~3, _HEADER.size)
    return None


def batch(messages: Iterable[bytes]) -> bytes:
    return b"".join((BEGIN, *messages, END))


def message(kind: int, flags: int, body: bytes, family: int = socket.AF_INET) -> bytes:
    """`kind` is one of NFT_MSG_*, `family` one of NFPROTO_*."""
    return _framed(_NFTABLES << 8 | kind, flags, body, family, 0)


def _framed(kind: int, flags: int, body: bytes, family: int, resource: int) -> bytes:
    length = _HEADER.size + _NFGENMSG.size + len(body)
    head = _HEADER.pack(length, kind, _REQUEST | flags, 0, 0) + _NFGENMSG.pack(family, 0, socket.htons(resource))
    return head + body + bytes(-length % 4)


BEGIN = _framed(_BATCH_BEGIN, 0, b"", socket.AF_UNSPEC, _NFTABLES)
END = _framed(_BATCH_END, 0, b"", socket.AF_UNSPEC, _NFTABLES)


def text(kind: int, value: str) -> bytes:
    """An attribute with a name."""
    return packed(kind, value.encode() + b"\0")


def number(kind: int, value: int) -> bytes:
    """An attribute with a 32 bit number."""
    return packed(kind, struct.pack("!i", value))
