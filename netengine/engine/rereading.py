"""What nobody tells of is read again, every half minute: sysctls that netengine has set, of the host and inside sandboxes.

The kernel has no events for them, forwarding aside. Only their files are read, those of one namespace after the other, and
nothing else is looked at; what differs is mended as healing mends. Never while an operation is under way, and of sandboxes a
hundred at a time, so that nobody notices: that takes some ten milliseconds.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

from netengine.drivers import DRIVERS
from netengine.engine import insides, rendering
from netengine.engine.core import Core
from netengine.engine.reconcile import Difference
from netengine.errors import NetengineError
from netengine.kernel.observe import observe_sysctls
from netengine.kernel.plan import plan
from netengine.kernel.resources import Resource, Sysctl
from netengine.model import Container

log = logging.getLogger(__name__)

_PERIOD = float(os.environ.get("NETENGINE_REREAD_SECONDS") or 30)
"""Seconds; the variable is for tests."""
_AT_ONCE = 100
"""Sandboxes read in one go; the others have their turn in the next."""


class Rereading:
    """Reads from `start` to `close`. `mend` is given what differs, and holds no lock: the caller of it does."""

    def __init__(self, core: Core, mend: Callable[[Difference], Awaitable[object]]) -> None:
        self._core = core
        self._mend = mend
        self._timer: asyncio.TimerHandle | None = None
        self._turn = 0

    def start(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_PERIOD, self._go)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _go(self) -> None:
        self.start()
        if not self._core.lock.locked():
            self._core.background(asyncio.create_task(self._read(), name="rereading"))

    async def _read(self) -> None:
        with suppress(NetengineError):  # the next time will do
            async with self._core.lock:
                if (found := await difference(self._core, self._next())).steps:
                    await self._mend(found)

    def _next(self) -> list[Container]:
        """The containers whose turn it is. Those of sandboxes that may change their own network never are."""
        containers = [
            c for c in self._core.state.containers.values() if c.sandbox_id and not insides.may_change_its_own(c)
        ]
        first = self._turn if self._turn < len(containers) else 0
        self._turn = first + _AT_ONCE
        return containers[first : self._turn]


async def difference(core: Core, containers: Iterable[Container]) -> Difference:
    """As reconcile's, for sysctls alone: of the host, and inside the sandboxes of these containers. One that the kernel has
    not, or no longer, is not missed: its link is gone, which is heard."""
    want = {r for r in core.base | rendering.of_policies(core) if isinstance(r, Sysctl)}
    for network in core.state.networks.values():
        want |= {r for r in DRIVERS[network.driver].render_network(network) if isinstance(r, Sysctl)}
    for container in containers:
        want |= {r for r in rendering.of_container(core, container) if isinstance(r, Sysctl)}
    have: frozenset[Resource] = frozenset(await core.on_kernel(observe_sysctls, core.kernel, want))
    return Difference(frozenset(want), have, plan(want, have))
