"""A socket on which the kernel tells of changes, read without blocking and without losing that events were lost.

What events mean is the business of `events`, for the host, and of `insides`, for sandboxes.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from netengine.kernel import filters
from netengine.kernel.descriptors import moved_up
from netengine.kernel.netlink import receive_buffer

HERE = -1
"""In place of a number (nsid): the namespace in which the socket listens."""

_SOL_NETLINK, _LISTEN_ALL_NSID, _SO_RCVBUFFORCE = 270, 8, 33
_BUFFER = 4 << 20
_DATAGRAMS = 256
"""Datagrams read in one go: a storm of events must not starve what else the loop has to do."""
_BACKLOG = 1 << 16  # the same, of a socket that has overflowed


@dataclass(frozen=True, slots=True)
class Overrun:
    """Events were lost: anything may have changed."""


class Listener:
    """Hears multicast groups (bit n-1 of `groups` is group n) of a netlink family, but for what `unheard` names."""

    def __init__(self, family: int, groups: int, unheard: Sequence[filters.Drop] = ()) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._sock = moved_up(socket.socket(socket.AF_NETLINK, kind, family))
        self._sock.setblocking(False)
        self._sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        if unheard:
            filters.attach(self._sock, unheard)
        self._sock.bind((0, groups))
        self._lossy = False
        """The kernel has thrown events away, and the socket was not read empty since."""

    def hear_all_namespaces(self) -> None:
        """That have a number here. Raises PermissionError without CAP_NET_BROADCAST."""
        self._sock.setsockopt(_SOL_NETLINK, _LISTEN_ALL_NSID, 1)

    def close(self) -> None:
        self._sock.close()

    def fileno(self) -> int:
        return self._sock.fileno()

    def read(self) -> Iterator[tuple[bytes, int] | Overrun]:
        """Datagrams with the number of the namespace that they tell of, oldest first.

        Of events that were lost it is said twice: while a socket that has overflowed is not read empty, the kernel throws away
        more without a word (NETLINK_S_CONGESTED, net/netlink/af_netlink.c).
        """
        buffer = receive_buffer()
        for number in range(_BACKLOG):
            if number >= _DATAGRAMS and not self._lossy:
                return
            try:
                size, ancillary, _, _ = self._sock.recvmsg_into([buffer], socket.CMSG_SPACE(4))
            except BlockingIOError:
                if self._lossy:
                    self._lossy = False
                    yield Overrun()
                return
            except OSError as e:
                if e.errno != errno.ENOBUFS:
                    raise
                self._lossy = True
                yield Overrun()
                continue
            told_of = (struct.unpack("=i", value)[0] for _, kind, value in ancillary if kind == _LISTEN_ALL_NSID)
            yield bytes(buffer[:size]), next(told_of, HERE)
