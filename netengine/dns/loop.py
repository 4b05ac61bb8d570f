"""One thread waiting for many descriptors: epoll, and deadlines. No asyncio: its cost per packet is that of the answer."""

from __future__ import annotations

import heapq
import itertools
import select
from collections.abc import Callable
from time import monotonic
from typing import Protocol

READ, WRITE = select.EPOLLIN, select.EPOLLOUT


class Timed(Protocol):
    """Something with many deadlines of its own. Each costs every turn of the loop: there are a few, whatever the load."""

    def due(self) -> float | None:
        """The next deadline by time.monotonic(), None if there is none."""

    def expire(self, now: float) -> None:
        """Do what is due."""


class Loop:
    """Calls back for descriptors that are ready and at set times, and asks each of `timed` when it wants to be woken.

    Level-triggered: a socket that was served a bounded batch and has more waits its turn behind the others.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._calls: dict[int, Callable[[int], None]] = {}
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self.timed: list[Timed] = []
        self._last: list[Callable[[], None]] = []
        self.running = True

    def watch(self, fd: int, call: Callable[[int], None], events: int = READ) -> None:
        """Call `call(ready events)` whenever `fd` is ready."""
        self._calls[fd] = call
        self._epoll.register(fd, events)

    def change(self, fd: int, events: int) -> None:
        """Wait for other events of a watched descriptor."""
        self._epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """Stop watching, before the descriptor is closed. A call that is under way for it in this turn is left out."""
        if self._calls.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def closing(self, fd: int) -> None:
        """As `forget`, for a descriptor that nobody else has and that is closed now: epoll forgets it by itself."""
        self._calls.pop(fd, None)

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call once, in so many seconds. For what is rare: it cannot be taken back."""
        heapq.heappush(self._later, (monotonic() + seconds, next(self._numbers), call))

    def last(self, call: Callable[[], None]) -> None:
        """Call once, when everything that is ready has been served, before anything is waited for."""
        self._last.append(call)

    def run(self) -> None:
        """Until `running` is false."""
        while self.running:
            self.turn()

    def turn(self, longest: float = -1.0) -> None:
        """Wait, at most `longest` seconds unless that is negative, and serve everything that is ready once."""
        while self._last:
            calls, self._last = self._last, []
            for last in calls:
                last()
        wait = longest
        due = self._due()
        if due is not None:
            left = max(due - monotonic(), 0.0)
            wait = left if wait < 0 else min(wait, left)
        for fd, ready in self._epoll.poll(wait):
            call = self._calls.get(fd)
            if call is not None:
                call(ready)
        # Deadlines that came up in this turn are for the next one.
        if due is not None and due <= (now := monotonic()):
            self._expire(now)

    def _due(self) -> float | None:
        earliest = self._later[0][0] if self._later else None
        for timed in self.timed:
            due = timed.due()
            if due is not None and (earliest is None or due < earliest):
                earliest = due
        return earliest

    def _expire(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            heapq.heappop(self._later)[2]()
        for timed in self.timed:
            due = timed.due()
            if due is not None and due <= now:
                timed.expire(now)
