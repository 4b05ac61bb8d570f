"""A host's life in the cluster, from joining or the daemon's start to leaving or its end.

A session keeps the host's lease, by which the others tell that it is up; holds the mirror, and what is needed to write: the
client of etcd and the way to the managers. Whether etcd answers is known before anybody asks: a change that needs it fails at
once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from netengine.cluster import keys
from netengine.cluster.mirror import Mirror
from netengine.cluster.records import DATA_PATH_PORT, LEASE_SECONDS, MANAGER, StatusRecord, lease_seconds
from netengine.errors import NetengineError, NotFound, Unavailable
from netengine.store.etcd import Etcd

log = logging.getLogger(__name__)

_READ_BACK = 3.0  # seconds in which the mirror is expected to have what this host has just written
_AGAIN = 1.0  # seconds after which a lease that could not be had or kept is tried for again

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
        self.mirror = Mirror(etcd, file)
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
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Read the cluster's state, from etcd or else from the file, and keep up with it. Raises Unavailable without both."""
        known = await self.mirror.restore()
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

    async def _register(self) -> None:
        """Take a lease and write what hangs on it."""
        self._lease_seconds = lease_seconds(self.mirror.cluster.record if self.mirror.cluster else None)
        self._lease = await self.etcd.grant(self._lease_seconds)
        await self.etcd.put(keys.alive(self.place.node_id), b"{}", self._lease)
        await self.describe(self.status)
        self._say(connected=True)

    async def _live(self) -> None:
        """Keep the lease, and take a new one when it is lost. Lasts until cancelled."""
        while True:
            await asyncio.sleep(self._lease_seconds / 3 if self.connected else _AGAIN)
            try:
                if self._lease and await self.etcd.keep_alive(self._lease):
                    self._say(connected=True)
                else:
                    await self._register()
            except NotFound:
                self._lease = 0
            except NetengineError as e:
                self._say(connected=False, why=e.message)

    def _say(self, *, connected: bool, why: str = "") -> None:
        if connected != self.connected:
            if connected:
                log.info("the cluster's store answers")
            else:
                log.warning("%s", why)
        changed, self.connected = connected != self.connected, connected
        for told in list(self.on_connect if connected else self.on_loss) if changed else ():
            told()
