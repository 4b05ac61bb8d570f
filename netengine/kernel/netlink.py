"""An rtnetlink socket: batches that are read to their last answer, dumps that are redone when the kernel says they broke.

pyroute2's message classes say what messages look like (request.py, seen.py); its sockets are not used, because each belongs to
a thread and an event loop, a failed batch leaves answers unread, an interrupted dump goes unnoticed and EBUSY is retried for
seconds. A socket stays in the network namespace that it was created in. Not thread-safe: only the kernel thread uses these.

The kernel carries a request out while it is sent, and its answers are there when that returns; of a dump the next part is,
when one is read. So nothing here ever waits, and an answer that is not there was lost: the kernel had no memory for it, or the
socket no room (ENOBUFS). Then it is not known what became of a request, and a dump that broke off would have the socket refuse
every other (EBUSY): such a socket is replaced.

Source: include/uapi/linux/netlink.h, RFC 3549.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import socket
import struct
import threading
from collections.abc import Sequence
from typing import Any

from pyroute2.netlink import NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST

from netengine import failpoints
from netengine.errors import KernelRefused
from netengine.kernel import namespaces
from netengine.kernel.attributes import attributes
from netengine.kernel.descriptors import moved_up
from netengine.kernel.request import Request, encode_by_pyroute2
from netengine.kernel.seen import Seen

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence number, port id
_ERROR, _DONE, _OVERRUN = 2, 3, 4  # NLMSG_ERROR, NLMSG_DONE, NLMSG_OVERRUN
_F_CAPPED, _F_ACK_TLVS, _F_DUMP_INTR = 0x100, 0x200, 0x10
_SOL_NETLINK, _NETFILTER = 270, 12
_CAP_ACK, _EXT_ACK, _GET_STRICT_CHK = 10, 11, 12
_ATTR_MSG = 1  # NLMSGERR_ATTR_MSG
_BUFFER = 1 << 20

_AT_ONCE = 200
"""Messages of one send: what is sent, and the answers, which the kernel counts as 768 bytes each and more, must fit into the
socket's buffers, for which net.core.{w,r}mem_max allow no more than 208 KiB as a rule."""
_NO_MEMORY = (errno.ENOBUFS, errno.ENOMEM)

Message = Any
"""A Request, or one of pyroute2's messages: nlmsg and its subclasses carry no types."""

_received = threading.local()


def receive_buffer() -> memoryview:
    """Where a thread reads answers and events to, of whichever socket. A new buffer of this size for each would have its memory
    mapped, cleared and unmapped by the kernel, which takes longer than to read most answers. Of this one only what was ever
    written to takes memory."""
    found: memoryview | None = getattr(_received, "buffer", None)
    if found is None:
        found = _received.buffer = memoryview(mmap.mmap(-1, _BUFFER))
    return found


class NetlinkError(OSError):
    """The kernel's answer to one message: errno, and its own words (extended acknowledgement) where it gave any.

    `lost`: there was none, and the message may have been carried out.
    """

    def __init__(self, number: int, what: str, words: str = "", *, lost: bool = False) -> None:
        super().__init__(number, f"{what}: {words or os.strerror(number)}")
        self.lost = lost


def _unanswered(what: str) -> NetlinkError:
    return NetlinkError(errno.ENOBUFS, what, "the kernel had no memory left for an answer", lost=True)


class NetlinkSocket:
    """A NETLINK_ROUTE socket in the network namespace of the thread that creates it."""

    def __init__(self) -> None:
        self._socket = _open()
        self._sequence = 0
        self._spent = False
        """Answers were lost: what else it would say is not to be relied on."""

    def close(self) -> None:
        self._socket.close()

    def namespace(self) -> int:
        """A new descriptor of the network namespace that the socket lives in (SIOCGSKNS, include/uapi/linux/sockios.h)."""
        return fcntl.ioctl(self._socket, 0x894C)

    def execute(self, messages: Sequence[tuple[str, Message]]) -> list[NetlinkError | None]:
        """Send all messages, a few hundred in one go, and answer what the kernel said to each, in order. Raises for no message.

        The kernel carries out every message of a batch, whatever became of those before it. Each message comes with a
        few words on what it does, for the error.
        """
        out: list[NetlinkError | None] = []
        for start in range(0, len(messages), _AT_ONCE):
            out += self._execute(messages[start : start + _AT_ONCE])
        return out

    def _execute(self, messages: Sequence[tuple[str, Message]]) -> list[NetlinkError | None]:
        first = self._sequence + 1
        chunk = bytearray()
        for _, message in messages:
            self._encode(message, NLM_F_REQUEST | NLM_F_ACK, chunk)
        try:
            self._send(chunk)
        except OSError as e:  # none was carried out
            return [NetlinkError(e.errno or errno.EIO, what) for what, _ in messages]
        outcome: list[NetlinkError | None] = [_unanswered(what) for what, _ in messages]
        waiting = len(messages)
        while waiting and (answers := self._receive()) is not None:
            for kind, sequence, flags, body in answers:
                index = sequence - first
                if kind != _ERROR or not 0 <= index < len(messages):
                    continue
                waiting -= 1
                number = -struct.unpack_from("=i", body)[0]
                outcome[index] = NetlinkError(number, messages[index][0], _words(body, flags)) if number else None
        return outcome

    def ask(self, what: str, message: Message) -> Seen:
        """The one object that the kernel answers with, read as the class of `message`. Raises NetlinkError."""
        chunk = bytearray()
        sequence = self._encode(message, NLM_F_REQUEST, chunk)
        self._send(chunk, what)
        while (answers := self._receive(whole=True)) is not None:
            for kind, seen, flags, body in answers:
                if seen != sequence:
                    continue
                if kind == _ERROR:
                    number = -struct.unpack_from("=i", body, _HEADER.size)[0]
                    raise NetlinkError(number, what, _words(body[_HEADER.size :], flags))
                return Seen(_kind(message), body)
        raise _unanswered(what)

    def dump(self, message: Message, most: int | None = None) -> list[Seen]:
        """All objects that the kernel lists in answer to `message`, each read as the class of `message`; with `most` the first
        so many, and the others cost next to nothing. Raises NetlinkError.

        A dump during which the objects changed (NLM_F_DUMP_INTR) is inconsistent and is done again.
        """
        for _ in range(20):
            interrupted = False
            out: list[Seen] = []
            chunk = bytearray()
            sequence = self._encode(message, NLM_F_REQUEST | NLM_F_DUMP, chunk)
            self._send(chunk, "dump")
            done = False
            while not done:
                answers = self._receive(whole=True)
                if answers is None or self._spent:  # parts of it may be missing
                    raise _unanswered("dump")
                for kind, seen, flags, body in answers:
                    if seen != sequence:
                        continue
                    interrupted = interrupted or bool(flags & _F_DUMP_INTR)
                    if kind == _DONE:
                        done = True
                    elif kind == _ERROR:
                        number = -struct.unpack_from("=i", body, 16)[0]
                        raise NetlinkError(number, "dump", _words(body[16:], flags))
                    elif most is None or len(out) < most:
                        out.append(Seen(_kind(message), body))
            if not interrupted:
                return out
        raise KernelRefused("the kernel's state changed during each of 20 attempts to list it; is something in a loop?")

    def _send(self, chunk: bytearray, what: str = "") -> None:
        """Raises OSError, and then nothing has happened; a NetlinkError where `what` says what was tried."""
        try:
            if self._spent:
                self._replace()
            failpoints.refuse("netlink: send")
            self._socket.send(chunk)
        except OSError as e:
            raise NetlinkError(e.errno or errno.EIO, what) if what else e from e

    def _replace(self) -> None:
        """A new socket in the same namespace. Raises OSError, and leaves the old one."""
        namespace, home = self.namespace(), namespaces.open_current()
        try:
            with namespaces.entered(namespace, home):
                fresh = _open()
        finally:
            os.close(namespace)
            os.close(home)
        self._socket.close()
        self._socket, self._spent = fresh, False

    def _encode(self, message: Message, flags: int, into: bytearray) -> int:
        self._sequence += 1
        if isinstance(message, Request):
            data = message.encode(flags, self._sequence)
        else:
            data = encode_by_pyroute2(message, dict(message["header"]), flags, self._sequence)
        into += data
        into += bytes(-len(data) % 4)
        return self._sequence

    def _receive(self, whole: bool = False) -> list[tuple[int, int, int, bytes]] | None:
        """One datagram as (type, sequence number, flags, body or, if `whole`, the message with its header); None when there
        is no more to come."""
        buffer = receive_buffer()
        while True:
            try:
                size, _, truncated, _ = self._socket.recvmsg_into([buffer])
                failpoints.refuse("netlink: receive")
                break
            except OSError as e:
                self._spent = True
                if e.errno in _NO_MEMORY:
                    continue  # said once; what there is can be read all the same
                if e.errno == errno.EAGAIN:
                    return None
                raise
        if truncated & socket.MSG_TRUNC:
            raise KernelRefused("a netlink answer was larger than 1 MiB")
        data = bytes(buffer[:size])
        out = []
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, message_flags, sequence, _ = _HEADER.unpack_from(data, offset)
            if length < _HEADER.size:
                break
            start = offset if whole else offset + _HEADER.size
            out.append((kind, sequence, message_flags, data[start : offset + length]))
            offset += (length + 3) & ~3
        return out


def _open() -> socket.socket:
    made = moved_up(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0))
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    for option in (_CAP_ACK, _EXT_ACK, _GET_STRICT_CHK):
        made.setsockopt(_SOL_NETLINK, option, 1)
    made.bind((0, 0))
    return made


def own_ports() -> set[int]:
    """The port ids of this process's netfilter sockets: who made a change is known by it. Reads the caller's namespace."""
    inodes = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    ports = set()
    with open("/proc/thread-self/net/netlink") as file:
        next(file)
        for line in file:
            fields = line.split()
            if fields[1] == str(_NETFILTER) and fields[-1] in inodes:
                ports.add(int(fields[2]) & 0xFFFFFFFF)
    return ports


def _kind(message: Message) -> type:
    """The pyroute2 class that reads the answers to a message."""
    return message.kind if isinstance(message, Request) else type(message)


def _words(body: bytes, flags: int) -> str:
    """The text of the extended acknowledgement in an NLMSG_ERROR body, or ""."""
    if not flags & _F_ACK_TLVS:
        return ""
    offset = 4 + _HEADER.size
    if not flags & _F_CAPPED:
        length = _HEADER.unpack_from(body, 4)[0]
        offset = 4 + ((length + 3) & ~3)
    for kind, value in attributes(body, offset):
        if kind == _ATTR_MSG:
            return value.rstrip(b"\0").decode(errors="replace")
    return ""


def is_gone(error: OSError) -> bool:
    """Whether the error says that the object is not there, so that removing it has succeeded."""
    return error.errno in (errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENXIO)
