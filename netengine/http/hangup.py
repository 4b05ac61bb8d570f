"""Whether a client that has ended its input is still there."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable
from typing import Any


class HangUp:
    """After its end of input a client that leaves is not noticed before the next write. On a unix socket the kernel tells the
    two apart (EPOLLHUP: both directions are shut), but only to someone who does not ask for input as well."""

    __slots__ = ("_epoll", "_then")

    def __init__(self, sock: Any, then: Callable[[], None]) -> None:
        """Calls `then`, once, when the peer of `sock` has shut both directions; never for a socket that is not a unix one."""
        self._then = then
        self._epoll: select.epoll | None = None
        if sock is None or sock.family != socket.AF_UNIX:
            return
        self._epoll = select.epoll()
        self._epoll.register(sock.fileno(), 0)
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._noticed)

    def _noticed(self) -> None:
        self.close()
        self._then()

    def close(self) -> None:
        if self._epoll is not None:
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None
