"""Telling the neighbours more than once: the announcements of an endpoint's addresses that follow the first.

The kernel announces an address when its link comes up; a packet may get lost, so it is said again a few times, a while apart
(docs/endpoints.md). One timer for all endpoints, on the event loop; the answer to a client waits for none of it.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from itertools import count

from netengine.model import Container, Endpoint

_TOGETHER = 0.01
"""Seconds: announcements that are due so soon after each other are made in one go."""

Send = Callable[[list[tuple[str, str, str]]], None]
"""Gets (namespace, link, MAC) of each endpoint to announce; must not block."""


class Announcements:
    """What is still to be announced. Used on the event loop alone."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._due: list[tuple[float, int, Container, Endpoint, int, float]] = []
        self._order = count()
        self._timer: asyncio.TimerHandle | None = None

    def schedule(self, container: Container, endpoint: Endpoint, times: int, seconds: float) -> None:
        """Announce the endpoint `times` more, the first in `seconds`, for as long as the container has it. Not one that has its
        parent's MAC: neighbours know that already."""
        if times > 0 and endpoint.link and endpoint.mac:
            self._push(asyncio.get_running_loop().time() + seconds, container, endpoint, times, seconds)
            self._arm()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due.clear()

    def _push(self, at: float, container: Container, endpoint: Endpoint, times: int, seconds: float) -> None:
        heapq.heappush(self._due, (at, next(self._order), container, endpoint, times, seconds))

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._due:
            self._timer = asyncio.get_running_loop().call_at(self._due[0][0], self._fire)

    def _fire(self) -> None:
        until = asyncio.get_running_loop().time() + _TOGETHER
        now: list[tuple[str, str, str]] = []
        while self._due and self._due[0][0] <= until:
            at, _, container, endpoint, times, seconds = heapq.heappop(self._due)
            if container.endpoints.get(endpoint.network_id) is not endpoint:
                continue  # it has left; another one may have its link's name by now
            now.append((endpoint.sandbox_id, endpoint.link, endpoint.mac))
            if times > 1:
                self._push(at + seconds, container, endpoint, times - 1, seconds)
        self._arm()
        if now:
            self._send(now)
