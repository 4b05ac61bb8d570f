"""What the kernel tells of itself is read and gathered here, until it has been quiet for a moment. What it means is judged by
`engine.healing`, under the writer lock; nothing is changed here.

Every operation of ours is told of, too, in a dozen events. So nothing is read as it comes: whoever waits for an answer would
wait for that as well. A moment later many are read in one go, and not while an operation is under way: that would give half
of a story, a link that is not up yet, to be looked into. The sockets keep it until then. Whoever judges first reads what there
is left: no operation is under way then, and the last word on each thing is among it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from netengine.engine import surroundings
from netengine.engine.core import Core
from netengine.kernel import events, insides

log = logging.getLogger(__name__)

QUIET, PATIENCE = 0.02, 0.3
"""Seconds without an event before looking, and the longest wait for that."""


class Hearing:
    """Listens from `listen` on, and reads from `start` to `close`. `look` is called when there is something to `take`."""

    def __init__(self, core: Core, look: Callable[[], None]) -> None:
        self._core = core
        self._look = look
        self._watch: events.Watch | None = None
        self._insides: insides.Insides | None = None
        self._unread: set[int] = set()
        """Descriptors with something to be read, of which nobody asks to be told until that is done."""
        self._pending: dict[tuple[str, str], events.Notice] = {}
        self._inside: dict[tuple[int, str, str], insides.Change] = {}
        self._first = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._later: asyncio.TimerHandle | None = None

    def listen(self) -> None:
        """Listen, in the network namespace of the calling thread."""
        self._watch = events.Watch()
        self._insides = insides.Insides()

    def start(self) -> None:
        if self._watch is None:
            self.listen()
        loop = asyncio.get_running_loop()
        for descriptor in self._descriptors():
            loop.add_reader(descriptor, self._heard, descriptor)
        loop.add_reader(self._core.kernel.relays.watch, self._relay_gone)

    def close(self) -> None:
        for timer in (self._timer, self._later):
            if timer is not None:
                timer.cancel()
        loop = asyncio.get_running_loop()
        if self._watch is not None:
            loop.remove_reader(self._core.kernel.relays.watch)
        for descriptor in self._descriptors():
            loop.remove_reader(descriptor)
        for heard in (self._watch, self._insides):
            if heard is not None:
                heard.close()
        self._watch = self._insides = None
        self._unread.clear()

    def take(self) -> tuple[list[events.Notice], list[insides.Change]]:
        """All that has been told up to now, of each thing the last word: of the host, and inside sandboxes. The caller holds
        the writer lock."""
        self._catch_up()
        mounts = self._watch.mounts if self._watch is not None else -1  # that it can be read is all that it has to say
        for descriptor in self._descriptors():
            if descriptor != mounts:
                self._read(descriptor)
        pending, self._pending = list(self._pending.values()), {}
        inside, self._inside = list(self._inside.values()), {}
        return pending, inside

    def look_again(self, seconds: float) -> None:
        """Have a look at everything after so many seconds, whatever is heard meanwhile."""
        if self._later is not None:
            self._later.cancel()
        self._later = asyncio.get_running_loop().call_later(seconds, self.consider, [events.Overrun()])

    def consider(self, notices: Iterable[events.Notice]) -> None:
        """Have the notices looked into when it has been quiet for a moment. Of each link only the last word counts."""
        self._gather(notices)
        self._schedule()

    # -- reading ------------------------------------------------------------------------------------------------------

    def _descriptors(self) -> tuple[int, ...]:
        return tuple(d for heard in (self._watch, self._insides) if heard is not None for d in heard.descriptors())

    def _heard(self, descriptor: int) -> None:
        asyncio.get_running_loop().remove_reader(descriptor)
        self._begin()
        self._unread.add(descriptor)
        self._schedule()

    def _catch_up(self) -> None:
        loop = asyncio.get_running_loop()
        for descriptor in sorted(self._unread):
            loop.add_reader(descriptor, self._heard, descriptor)
            self._read(descriptor)
        self._unread.clear()

    def _read(self, descriptor: int) -> None:
        try:
            if self._insides is not None and descriptor in self._insides.descriptors():
                self._gather_inside(self._insides.read(descriptor))
            elif self._watch is not None:
                self._gather(self._watch.read(descriptor))
        except OSError as e:
            log.error("the kernel's events cannot be read: %s", e)
            self._gather([events.Overrun()])

    def _relay_gone(self) -> None:
        if self._core.kernel.relays.has_ended():
            self._core.background(
                asyncio.create_task(self._core.on_kernel(self._core.kernel.relays.bury), name="relay")
            )
            self.consider([events.RelayGone()])

    # -- gathering ----------------------------------------------------------------------------------------------------

    def _gather(self, notices: Iterable[events.Notice]) -> None:
        for notice in notices:
            if isinstance(notice, events.RouteSeen):
                surroundings.route_seen(self._core, notice)
                continue
            self._begin()
            self._pending[_subject(notice)] = notice

    def _gather_inside(self, changes: Iterable[insides.Change | insides.Overrun]) -> None:
        for change in changes:
            if isinstance(change, insides.Overrun):
                self._gather([events.Overrun()])
                continue
            self._begin()
            self._inside[change.nsid, change.kind, change.subject] = change

    def _begin(self) -> None:
        """From the first of what is to be looked into on, patience is finite."""
        if not (self._pending or self._inside or self._unread):
            self._first = asyncio.get_running_loop().time()

    def _schedule(self) -> None:
        if not (self._pending or self._inside or self._unread):
            return
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            if self._timer.when() <= loop.time():
                return  # it is about to go: put off at every event, it never would
            self._timer.cancel()
        self._timer = loop.call_at(min(loop.time() + QUIET, self._first + PATIENCE), self._due)

    def _due(self) -> None:
        self._timer = None
        patient = asyncio.get_running_loop().time() < self._first + PATIENCE
        if self._unread and patient and not self._core.lock.locked():
            self._catch_up()
            self._schedule()  # until nothing more comes
        elif self._pending or self._inside or self._unread:  # or else who looked last has taken it
            self._look()


def _subject(notice: events.Notice) -> tuple[str, str]:
    match notice:
        case events.LinkSeen(name=name) | events.LinkGone(name=name):
            return "link", name
        case events.AddressGone(link=link, address=address):
            return address, link
        case events.AddressSeen(address=address):
            return "seen", address
        case events.ForwardingOff(ipv6=ipv6):
            return "forwarding", str(ipv6)
        case events.RateTouched(index=index):
            return "rate", str(index)
        case events.EntryTouched(index=index, subject=subject):
            return f"entry of {index}", subject
    return type(notice).__name__, ""
