"""UDP in batches: recvmmsg(2) and sendmmsg(2), which Python lacks, and the loop that answers known questions.

A packet is compared as a whole, all but its id, with the answers that a view keeps; only what is not found there is looked
at by anybody. The buffers are allocated once and shared by all sockets: one thread serves one socket at a time.
"""

from __future__ import annotations

import ctypes
import mmap
import socket
import sys
from collections.abc import Callable, Mapping
from typing import NamedTuple

from netengine.dns.zones import Answer

BATCH = 32  # packets that one socket is served at a time, so that a busy one lets the others in
SLOT = 4096  # bytes; no honest question is as long, and longer answers are sent singly

_EAGAIN, _EINTR, _ENOSYS = 11, 4, 38


class _IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _MsgHdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.c_void_p),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _MMsgHdr(ctypes.Structure):
    _fields_ = (("header", _MsgHdr), ("length", ctypes.c_uint))


_NAME = 16  # sizeof(struct sockaddr_in): family, port, address, padding
_libc = ctypes.CDLL(None, use_errno=True)
_recvmmsg, _sendmmsg = _libc.recvmmsg, _libc.sendmmsg


class Served(NamedTuple):
    """Of one batch: packets received, answered from what was kept, and lost because the socket's buffer was full."""

    received: int
    answered: int
    lost: int


class _Vector:
    """A message vector with its buffers, addresses and lengths, each as one block of memory."""

    def __init__(self) -> None:
        self.data = mmap.mmap(-1, BATCH * SLOT)
        self.names = mmap.mmap(-1, BATCH * _NAME)
        data = ctypes.addressof(ctypes.c_char.from_buffer(self.data))
        names = ctypes.addressof(ctypes.c_char.from_buffer(self.names))
        self.iov = (_IoVec * BATCH)(*(_IoVec(data + i * SLOT, SLOT) for i in range(BATCH)))
        at = ctypes.addressof(self.iov)
        step = ctypes.sizeof(_IoVec)
        headers = (_MsgHdr(names + i * _NAME, _NAME, at + i * step, 1, None, 0, 0) for i in range(BATCH))
        self.messages = (_MMsgHdr * BATCH)(*(_MMsgHdr(header, 0) for header in headers))
        words = memoryview(self.messages).cast("B").cast("I")
        stride = ctypes.sizeof(_MMsgHdr) // 4
        self.received = words[_MMsgHdr.length.offset // 4 :: stride]
        # iov_len of each message; read and written as machine words of 64 bits.
        self.lengths = memoryview(self.iov).cast("B").cast("Q")[1::2]


class Datagrams:
    """The buffers, and `serve`."""

    def __init__(self) -> None:
        self._in = _Vector()
        self._out = _Vector()

    def serve(self, fd: int, hot: Mapping[bytes, Answer], other: Callable[[bytes, tuple[str, int]], None]) -> Served:
        """Receive one batch, answer what `hot` has, and give `other` the rest: (packet, sender). OSError if fd is bad."""
        count = _recvmmsg(fd, self._in.messages, BATCH, socket.MSG_DONTWAIT, None)
        if count <= 0:
            number = ctypes.get_errno()
            if count == 0 or number in (_EAGAIN, _EINTR):
                return Served(0, 0, 0)
            raise OSError(number, "recvmmsg")
        data, names = self._in.data, self._in.names
        out, out_names, out_lengths = self._out.data, self._out.names, self._out.lengths
        ready = at = name_at = 0
        rest: list[int] = []
        lengths = self._in.received[:count].tolist()
        for i, length in enumerate(lengths):
            start = i * SLOT
            kept = hot.get(data[start + 2 : start + length])
            if kept is None:
                rest.append(i)
                continue
            if isinstance(kept, bytes):
                answer = kept
            else:
                kept.rotate(-1)
                answer = kept[0]
            size = len(answer) + 2
            if size > SLOT:
                rest.append(i)
                continue
            out[at : at + 2] = data[start : start + 2]
            out[at + 2 : at + size] = answer
            out_names[name_at : name_at + _NAME] = names[i * _NAME : i * _NAME + _NAME]
            out_lengths[ready] = size
            ready += 1
            at += SLOT
            name_at += _NAME
        sent = _sendmmsg(fd, self._out.messages, ready, socket.MSG_DONTWAIT) if ready else 0
        for i in rest:
            name = names[i * _NAME : i * _NAME + _NAME]
            sender = (socket.inet_ntoa(name[4:8]), int.from_bytes(name[2:4], "big"))
            other(data[i * SLOT : i * SLOT + lengths[i]], sender)
        answered = max(sent, 0)
        return Served(count, answered, ready - answered)


if sys.maxsize <= 2**32:
    raise ImportError("netengine.dns needs a 64-bit machine: the layout of its message vectors is of those")
