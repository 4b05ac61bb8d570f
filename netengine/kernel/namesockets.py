"""Sockets of sandboxes' name services: opened along with the sandbox, of use from its first network with names on, and kept
here until the name server gets them. What they are and what leads to them is `kernel.nameservice`'s business.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from netengine.kernel import nameservice
from netengine.kernel.resources import NameService

if TYPE_CHECKING:
    from netengine.kernel.host import Kernel

_MOST = 1000
"""Sandboxes that may never need them, and have them prepared all the same: three descriptors each."""


class NameSockets:
    """By namespace. `take` may be called from any thread, all else by who may use `Kernel`."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._prepared: dict[str, nameservice.Prepared] = {}
        self._open: dict[str, list[socket.socket]] = {}

    def prepare(self, ns: str) -> None:
        """The calling thread is in a sandbox that has no name service. Without descriptors to spare it is left for later."""
        if ns not in self._prepared and len(self._prepared) < _MOST:
            with suppress(OSError):
                self._prepared[ns] = nameservice.prepare()

    def is_prepared(self, r: NameService) -> bool:
        """Whether `open` need not enter the sandbox."""
        return r.ns in self._prepared and not r.own_servers

    def open(self, r: NameService) -> None:
        """Make the name service."""
        self.close(r.ns)
        self._kernel.name_ports.pop(r.ns, None)
        with ExitStack() as opened:
            prepared = self._prepared.pop(r.ns, None)
            if prepared is not None:
                opened.callback(prepared.close)
            upstream = []
            if prepared is None or r.own_servers:
                with self._kernel.inside(r.ns):
                    prepared = prepared or nameservice.prepare()
                    opened.callback(prepared.close)
                    upstream = nameservice.upstream_sockets(r.own_servers)
                    for one in upstream:
                        opened.enter_context(one)
            self._open[r.ns] = [*nameservice.serve(prepared), *upstream]
            opened.pop_all()

    def take(self, ns: str) -> list[socket.socket]:
        """Those made for the name server, to be handed over to it; [] when there are none new."""
        return self._open.pop(ns, [])

    def close(self, ns: str) -> None:
        """Those that nobody took."""
        for one in self._open.pop(ns, []):
            one.close()

    def forget(self, ns: str) -> None:
        """The namespace is to go: a socket would hold it."""
        self.close(ns)
        if (prepared := self._prepared.pop(ns, None)) is not None:
            prepared.close()

    def close_all(self) -> None:
        for ns in [*self._open, *self._prepared]:
            self.forget(ns)
