"""A host's life in the cluster, from joining or the daemon's start to leaving or its end.

A session keeps the host's lease, by which the others tell that it is up; holds the mirror, and what is needed to write: the
client of etcd and the way to the managers. Whether etcd answers is known before anybody asks: a change that needs it fails at
once.

What hangs on the lease may go although this host is up: when etcd's disks hung, its processes were stopped, or its leader went
by what it had not heard. Then this host writes itself anew as soon as it sees that, and gives the others time to do the same
before it believes that they are down.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from netengine.cluster import keys
from netengine.cluster.mirror import FAREWELL, Mirror
from netengine.cluster.records import DATA_PATH_PORT, LEASE_SECONDS, MANAGER, StatusRecord, lease_seconds
from netengine.errors import Forbidden, NetengineError, Unavailable
from netengine.store.etcd import Etcd

log = logging.getLogger(__name__)

_READ_BACK = 3.0  # seconds in which the mirror is expected to have what this host has just written
_AGAIN = 1.0  # seconds after which a lease that could not be had or kept is tried for again
_SETTLE = 2.0
"""Seconds in which a host that sees its own sign of life go has written another; a part of the time after which it is down."""
_RETURN = 4.0
"""Seconds after which a host asks a store again that did not answer, at most: a call's limit, and _AGAIN."""

Ask = Callable[[str, Mapping[str, Any]], Awaitable[Any]]
"""Calls a managers' control service by name with a JSON object; answers its JSON. Raises what it raised, and Unavailable."""


@dataclass(frozen=True, slots=True)
class Place:
    """Who this host is in the cluster, and where its tunnels end."""

    node_id: str
    role: str
    data_path: str
    """An address of this host, of either family, by which the others reach it."""
    data_path_port: int = DATA_PATH_PORT

    @property
    def is_manager(self) -> bool:
        return self.role == MANAGER


class Session:
    """Made once a host belongs to a cluster; `start` it on the event loop, `close` it when the host or the daemon leaves."""

    def __init__(self, place: Place, etcd: Etcd, ask: Ask, status: StatusRecord, file: Path | None = None) -> None:
        """`file` is where the mirror is kept for a start without etcd."""
        self.place = place
        self.etcd = etcd
        self.ask = ask
        self.mirror = Mirror(etcd, file, self.patience)
        self.mirror.on_missed.append(self._missed)
        self.connected = False
        self.refusal = ""
        """Why the cluster lets this node in no more, as far as its managers say."""
        self.on_connect: list[Callable[[], None]] = []
        """Called in turn, on the event loop, whenever etcd answers again."""
        self.on_loss: list[Callable[[], None]] = []
        """The same, when it does not any more."""
        self.status = status
        """What this host says of itself, as it is or will be written."""
        self._described = 0  # the revision in which this host's status was written
        self._lease, self._lease_seconds = 0, LEASE_SECONDS
        self._beaten = self._wavered = -math.inf
        self._gone = asyncio.Event()
        self._pulsing = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Read the cluster's state, from etcd or else from the file, and keep up with it. Raises Unavailable without both."""
        known = await self.mirror.restore()
        if known:  # by a daemon before this one: what was in between nobody has seen
            self._wavered = time.monotonic()
        try:
            await self.mirror.load()
            await self._register()
        except Unavailable as e:
            if not known:
                raise
            log.warning("%s; the last known state of the cluster is kept", e.message)
        self._tasks = [
            asyncio.create_task(self.mirror.follow(), name="mirror"),
            asyncio.create_task(self._live(), name="lease"),
        ]
        # Who has just come in finds itself among the nodes.
        with suppress(TimeoutError):
            async with asyncio.timeout(_READ_BACK):
                await self.mirror.reached(self._described)

    async def close(self, *, leaving: bool = False) -> None:
        """Stop. Others go on to see this host as up until its lease ends, or with `leaving` not any more at once."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if leaving and self._lease:
            with suppress(NetengineError):
                await self.etcd.put(keys.alive(self.place.node_id), msgspec.json.encode(FAREWELL), self._lease)
                await self.etcd.revoke(self._lease)
        self.mirror.close()
        await self.etcd.close()

    def check(self) -> None:
        """Raise Unavailable at once when etcd did not answer lately."""
        if not self.connected:
            why = self.refusal or f"the cluster's store does not answer: {self.etcd.remedy}"
            raise Unavailable(f"{why}; what runs goes on")

    async def describe(self, status: StatusRecord) -> None:
        """Say something new of this host to the others."""
        self.status = status
        self._described = await self.etcd.put(keys.status(self.place.node_id), msgspec.json.encode(status))

    # -- the lease ----------------------------------------------------------------------------------------------------

    @property
    def _settle(self) -> float:
        return min(_SETTLE, self._beat_seconds)

    @property
    def _beat_seconds(self) -> float:
        return self._lease_seconds / 3

    def patience(self) -> float:
        """Seconds for which a node is believed to be up whose sign of life has gone from the store.

        With its lease they are what the cluster says (lease_seconds), as long as the store has answered all the time. Otherwise
        leases may have ended for want of an answer, and each host has yet to find out that it can have another.
        """
        longer = max(self._beat_seconds, _RETURN)
        steady = time.monotonic() - self._wavered > self._lease_seconds + longer
        return self._settle + (0.0 if steady else longer)

    def _missed(self, node_id: str) -> None:
        if node_id == self.place.node_id:
            self._gone.set()

    async def _register(self) -> None:
        """Take a lease and write what hangs on it."""
        self._lease_seconds = lease_seconds(self.mirror.cluster.record if self.mirror.cluster else None)
        lease = await self.etcd.grant(math.ceil(self._lease_seconds - self._settle))
        await self.etcd.put(keys.alive(self.place.node_id), b"{}", lease)
        await self.describe(self.status)
        self._lease = lease
        self._beaten = time.monotonic()
        self._say(connected=True)

    async def _live(self) -> None:
        """Keep the lease, and take a new one when it is lost. Lasts until cancelled."""
        while True:
            due = self._beaten + self._beat_seconds - time.monotonic() if self.connected else _AGAIN
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, due)):
                    await self._gone.wait()
            self._gone.clear()
            await self._pulse()

    async def look(self) -> None:
        """Find out at once whether the store answers, if the session has begun: to be called when it is known to."""
        if self._tasks:
            await self._pulse()

    async def _pulse(self) -> None:
        """Show once that this host is up; `connected` says then whether the store answers. Raises nothing."""
        async with self._pulsing:
            began = time.monotonic()
            try:
                if not self._lease or not await self._beat():
                    await self._register()
            except NetengineError as e:
                self._wavered = time.monotonic()
                self._say(connected=False, why=e.message)
            else:
                if began - self._beaten > 2 * self._beat_seconds:
                    self._wavered = began  # this host was stopped itself, and saw nothing
                self._beaten = began
                self._say(connected=True)

    async def _beat(self) -> bool:
        """Renew the lease, and see that the store answers: False when the lease has ended. Raises Unavailable.

        A member renews without asking the others, even while its disk hangs: so what hangs on the lease is read besides, which
        takes a majority. What a member renews that leads no more the one that does has not heard of: so each is asked.
        """
        reading = self.etcd.get(keys.alive(self.place.node_id))
        renewing = self.etcd.keep_alive(self._lease)
        entry, seconds = await asyncio.gather(reading, renewing, return_exceptions=True)
        if isinstance(seconds, BaseException):
            raise seconds
        if isinstance(entry, Forbidden):
            return True  # it answers; why it refuses this node a manager can say (membership.py)
        if isinstance(entry, BaseException):
            raise entry
        if (seconds and not any(seconds)) or (entry is None and 0 in seconds):
            log.info("this host's lease in the cluster's store has ended, and it takes another")
            self._wavered = time.monotonic()
            self._lease = 0
        return self._lease != 0

    def _say(self, *, connected: bool, why: str = "") -> None:
        if connected != self.connected:
            if connected:
                log.info("the cluster's store answers")
            else:
                log.warning("%s", why)
        changed, self.connected = connected != self.connected, connected
        for told in list(self.on_connect if connected else self.on_loss) if changed else ():
            told()
