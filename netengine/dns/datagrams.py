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
_recvmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
_sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)
_STEP = ctypes.sizeof(_MMsgHdr)


class Served(NamedTuple):
    """Of one batch: packets received, answered from what was kept, and lost because the socket's buffer was full."""

    received: int
    answered: int
    lost: int


class Datagrams:
    """The buffers, and `serve`.

    A slot holds a packet, then, in its place, its answer, on its way back to the address that it came from: the id is there
    already, and nothing is copied but the answer. So there are two message vectors over the same memory.
    """

    def __init__(self) -> None:
        self._data = mmap.mmap(-1, BATCH * SLOT)
        self._names = mmap.mmap(-1, BATCH * _NAME)
        self._in, _ = self._vector()
        self._out, out = self._vector()
        self._lengths = memoryview(out).cast("B").cast("Q")[1::2]  # iov_len of each message: a machine word
        words = memoryview(self._in).cast("B").cast("I")
        self._received = words[_MMsgHdr.length.offset // 4 :: ctypes.sizeof(_MMsgHdr) // 4]
        self._out_at = ctypes.addressof(self._out)

    def _vector(self) -> tuple[ctypes.Array[_MMsgHdr], ctypes.Array[_IoVec]]:
        data = ctypes.addressof(ctypes.c_char.from_buffer(self._data))
        names = ctypes.addressof(ctypes.c_char.from_buffer(self._names))
        iov = (_IoVec * BATCH)(*(_IoVec(data + i * SLOT, SLOT) for i in range(BATCH)))
        at, step = ctypes.addressof(iov), ctypes.sizeof(_IoVec)
        headers = (_MsgHdr(names + i * _NAME, _NAME, at + i * step, 1, None, 0, 0) for i in range(BATCH))
        messages = (_MMsgHdr * BATCH)(*(_MMsgHdr(header, 0) for header in headers))
        self._kept = (*getattr(self, "_kept", ()), iov)  # the headers point there; ctypes does not know
        return messages, iov

    def serve(self, fd: int, hot: Mapping[bytes, Answer], other: Callable[[bytes, tuple[str, int]], None]) -> Served:
        """Receive one batch, answer what `hot` has, and give `other` the rest: (packet, sender). OSError if fd is bad."""
        count = _recvmmsg(fd, self._in, BATCH, socket.MSG_DONTWAIT, None)
        if count <= 0:
            number = ctypes.get_errno()
            if count == 0 or number in (_EAGAIN, _EINTR):
                return Served(0, 0, 0)
            raise OSError(number, "recvmmsg")
        data, out_lengths = self._data, self._lengths
        rest: list[int] = []
        lengths = self._received[:count].tolist()
        start = 2  # behind the id
        for i, length in enumerate(lengths):
            kept = hot.get(data[start : start + length - 2])
            if kept is None:
                rest.append(i)
                start += SLOT
                continue
            if isinstance(kept, bytes):
                answer = kept
            else:
                kept.rotate(-1)
                answer = kept[0]
            size = len(answer)
            if size > SLOT - 2:
                rest.append(i)
            else:
                data[start : start + size] = answer
                out_lengths[i] = size + 2
            start += SLOT
        sent = self._send(fd, rest, count)
        for i in rest:
            name = self._names[i * _NAME : i * _NAME + _NAME]
            sender = (socket.inet_ntoa(name[4:8]), int.from_bytes(name[2:4], "big"))
            other(data[i * SLOT : i * SLOT + lengths[i]], sender)
        return Served(count, sent, count - len(rest) - sent)

    def _send(self, fd: int, but: list[int], count: int) -> int:
        """Send what is in the slots, but for some; how many went."""
        sent = begin = 0
        for end in (*but, count):
            if end > begin:
                went = _sendmmsg(fd, self._out_at + begin * _STEP, end - begin, socket.MSG_DONTWAIT)
                sent += max(went, 0)
            begin = end + 1
        return sent


if sys.maxsize <= 2**32:
    raise ImportError("netengine.dns needs a 64-bit machine: the layout of its message vectors is of those")
