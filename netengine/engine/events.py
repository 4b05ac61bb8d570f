"""Events: what happened to networks, containers and images, as `docker events` shows it. The last 1,024 are kept."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import msgspec

KEPT = 1024
_QUEUE_LIMIT = 8192


class Event(msgspec.Struct, frozen=True):
    """One event. `time_ns` is nanoseconds since the epoch; `kind` is network, container, image, node or daemon."""

    kind: str
    action: str
    id: str
    attributes: dict[str, str]
    time_ns: int

    @property
    def scope(self) -> str:
        """Whether it is of this host alone or of the cluster, in Docker's words."""
        shared = self.attributes.get("type") == "overlay" and self.action in ("create", "remove")
        return "swarm" if self.kind == "node" or (self.kind == "network" and shared) else "local"

    def as_wire(self, legacy: bool) -> dict[str, Any]:
        """The API's message; `legacy` (API below 1.52) repeats a container's fields at the top, as Docker did."""
        out: dict[str, Any] = {
            "Type": self.kind,
            "Action": self.action,
            "Actor": {"ID": self.id, "Attributes": self.attributes},
            "scope": self.scope,
            "time": self.time_ns // 1_000_000_000,
            "timeNano": self.time_ns,
        }
        if legacy and self.kind in ("container", "image"):
            out |= {"status": self.action, "id": self.id}
            if "image" in self.attributes:
                out["from"] = self.attributes["image"]
        return out


class Events:
    """A bus with a memory. Publishing never waits: a listener that falls 8,192 events behind is dropped."""

    def __init__(self) -> None:
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._queues: set[asyncio.Queue[Event | None]] = set()
        self.last: Event | None = None
        """The newest, if there is one."""

    def publish(self, kind: str, action: str, identity: str, **attributes: str) -> None:
        # Strictly increasing, so that `since` with the last seen time neither repeats nor loses one.
        at = time.time_ns() if self.last is None else max(time.time_ns(), self.last.time_ns + 1)
        self.last = event = Event(kind, action, identity, attributes, at)
        self._kept.append(event)
        for queue in list(self._queues):
            if queue.qsize() >= _QUEUE_LIMIT:
                self._queues.discard(queue)
                queue.put_nowait(None)
            else:
                queue.put_nowait(event)

    async def listen(self, since_ns: int | None, until_ns: int | None) -> AsyncIterator[Event]:
        """Past events since `since_ns` (none of them when it is None), then live ones until `until_ns` (for ever)."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        past = [e for e in self._kept if since_ns is not None and e.time_ns >= since_ns]
        self._queues.add(queue)
        try:
            for event in past:
                if until_ns is None or event.time_ns <= until_ns:
                    yield event
            while True:
                timeout = None if until_ns is None else (until_ns - time.time_ns()) / 1e9
                if timeout is not None and timeout <= 0:
                    return
                try:
                    async with asyncio.timeout(timeout):
                        live = await queue.get()
                except TimeoutError:
                    return
                if live is None:
                    return
                yield live
        finally:
            self._queues.discard(queue)

    def close(self) -> None:
        """End all listeners: the daemon stops."""
        for queue in list(self._queues):
            queue.put_nowait(None)
