"""What all operations of the engine stand on: the state, the store, the kernel and its thread, the writer lock.

`Core.operation` is the frame of every change: it holds the writer lock, records what is under way before the first effect, and
takes everything back when something fails.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_address
from typing import Literal, ParamSpec, TypeVar

from netengine.config import Config
from netengine.drivers import endpoint_options
from netengine.engine.addresses import Addresses
from netengine.engine.announcements import Announcements
from netengine.engine.events import Events
from netengine.engine.state import State
from netengine.errors import KernelRefused, NetengineError
from netengine.kernel.host import Kernel
from netengine.kernel.hostports import PortAsk
from netengine.kernel.resources import HostPort, Resource
from netengine.model import Container, Endpoint, Network, Policy
from netengine.runtime import ImageStore, Runtime
from netengine.store import Intent, Store, Transaction

log = logging.getLogger(__name__)

_REAP_QUIET, _REAP_MOST, _REAP_AGAIN = 0.1, 1.0, 5.0
"""Seconds without work before detached links are deleted, and the longest wait for that."""

_LONG, _THREAD_ONLY = 0.02, 1.0
"""What took so many seconds on the event loop waited for another's RTNL lock; for so many the thread does the waiting then."""

P = ParamSpec("P")
T = TypeVar("T")


def new_id() -> str:
    """A random 64-digit hexadecimal id, as Docker's. Never all digits at the front: such a prefix would look like a number."""
    while True:
        identity = secrets.token_hex(32)
        if not identity[:12].isdigit():
            return identity


def now() -> str:
    """The time in RFC 3339 with nanoseconds, UTC."""
    return stamp(datetime.now(UTC))


def stamp(at: datetime) -> str:
    """A time in RFC 3339 with nanoseconds, UTC: the form in which the model keeps it."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}000Z"


def moment_of(text: str) -> datetime:
    """The time that `stamp` wrote, to the microsecond."""
    return datetime.fromisoformat(text[:26] + "+00:00")


@dataclass
class Core:
    """The engine's shared parts. Only its operations use it; the API sees `Engine`."""

    config: Config
    store: Store
    kernel: Kernel
    runtime: Runtime
    images: ImageStore
    state: State = field(default_factory=State)
    events: Events = field(default_factory=Events)
    addresses: Addresses = field(default_factory=Addresses)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    base: frozenset[Resource] = frozenset()
    """Resources that belong to no network: the nftables table, ip_forward."""
    broken: dict[str, str] = field(default_factory=dict)
    """Parts of the model that cannot be rendered, and why. See `rendering`."""
    put_back: Callable[[frozenset[Resource], frozenset[Resource]], Awaitable[bool]] | None = None
    """Puts back what a refused change (wanted, had) may have missed; whether there was anything. See `reconcile.put_back`."""
    look_around: Callable[[], None] = lambda: None
    """Asks for a look at everything soon, since the kernel is not as it should be. See `Healing`."""

    def __post_init__(self) -> None:
        # One thread for the kernel: setns and unshare belong to it, and changes wait for the kernel's RTNL lock.
        self._kernel_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kernel")
        self._on_thread: set[object] = set()
        """What the thread has to do, or does. Only without any is the kernel free for the event loop."""
        self._thread_until = 0.0
        self._reaper_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reaper")
        self._tasks: set[asyncio.Task[None]] = set()
        self._reap_at: asyncio.TimerHandle | None = None
        self._reap_by = 0.0
        self._announcements = Announcements(self._announce_again)

    async def on_kernel(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function on the kernel thread. What the kernel refuses is a KernelRefused."""
        try:
            work = self._kernel_thread.submit(function, *args, **kwargs)
            self._on_thread.add(work)
            work.add_done_callback(self._on_thread.discard)
            return await asyncio.wrap_future(work)
        except OSError as e:
            raise KernelRefused(f"the kernel refused: {e.strerror or e}") from e
        finally:
            self._after_kernel()

    async def briefly(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `on_kernel` for what takes the kernel less than a millisecond and enters no namespace. It is done here and now: to
        have the thread do it, and to be woken when it is done, takes half as long again, and longer on a host that was asleep.

        The price is that the event loop waits where another program has the kernel's RTNL lock. It does so once: for a second
        the thread has it all then. What the thread is at, it finishes before.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        if self._on_thread or began < self._thread_until:
            return await self.on_kernel(function, *args, **kwargs)
        try:
            return function(*args, **kwargs)
        except OSError as e:
            raise KernelRefused(f"the kernel refused: {e.strerror or e}") from e
        finally:
            if (now := loop.time()) > began + _LONG:
                self._thread_until = now + _THREAD_ONLY
            self._after_kernel()

    async def apply(self, want: frozenset[Resource], have: frozenset[Resource]) -> None:
        """Make the kernel go from `have` to `want`."""
        run = self.briefly if self.kernel.is_brief(want, have) else self.on_kernel
        await run(self.kernel.apply, want, have)

    def _after_kernel(self) -> None:
        if self.kernel.graves:
            self._reap_later(asyncio.get_running_loop())
        if self.kernel.unfinished:
            self.kernel.unfinished = False
            self.look_around()

    def _reap_later(self, loop: asyncio.AbstractEventLoop) -> None:
        """Delete what was taken out of use when there is nothing else to do, or it has waited long enough: the kernel holds its
        RTNL lock for a part of that, and whatever else is asked of it waits."""
        if self._reap_at is None:
            self._reap_by = loop.time() + _REAP_MOST
        else:
            self._reap_at.cancel()
        self._reap_at = loop.call_at(min(loop.time() + _REAP_QUIET, self._reap_by), self._reap)

    def _reap(self) -> None:
        self._reap_at = None
        self.background(asyncio.create_task(self._reap_now(), name="reap"))

    async def _reap_now(self) -> None:
        try:
            await asyncio.wrap_future(self._reaper_thread.submit(self.kernel.reap))
        except (OSError, KernelRefused) as e:
            log.warning("links that are out of use cannot be deleted now, and will be later: %s", e)
            if self._reap_at is not None:
                self._reap_at.cancel()
            self._reap_at = asyncio.get_running_loop().call_later(_REAP_AGAIN, self._reap)

    def background(self, work: asyncio.Task[None]) -> None:
        """Keep a task alive until it is done; what it raises is logged."""
        self._tasks.add(work)
        work.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("in the background: %s", error, exc_info=error)

    def publish_network(self, action: str, network: Network, container: Container) -> None:
        """The event that a container came to a network or left it."""
        self.events.publish(
            "network", action, network.id, container=container.id, name=network.name, type=network.driver
        )

    def announce(self, network: Network, container: Container, endpoint: Endpoint) -> None:
        """The first announcement of a new endpoint was the kernel's; see to those that follow it, where there was one."""
        if endpoint.steady_mac:
            return
        times, interval = endpoint_options.announcements(network)
        self._announcements.schedule(container, endpoint, times - 1, interval / 1000)

    def _announce_again(self, links: list[tuple[str, str, str]]) -> None:
        self.background(asyncio.create_task(self.on_kernel(self.kernel.announce, links), name="announce"))

    async def close(self) -> None:
        """Stop background work and let go of the kernel's sockets; networks and containers stay as they are."""
        self._announcements.close()
        if self._reap_at is not None:
            self._reap_at.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._reaper_thread.shutdown()
        await self.on_kernel(self.kernel.close)
        self._kernel_thread.shutdown()
        self.store.close()

    @asynccontextmanager
    async def operation(self, what: str) -> AsyncIterator[Operation]:
        """A change of the model and the kernel: one at a time, whole or not at all."""
        async with self.lock:
            operation = Operation(self, what)
            try:
                yield operation
                operation.finish()
            except BaseException:
                await asyncio.shield(operation.roll_back())
                raise


class Operation:
    """One change under way. Its steps are taken back, last first, when the block that holds it fails."""

    def __init__(self, core: Core, what: str) -> None:
        self._core = core
        self._intent = Intent(new_id(), what)
        self._begun = False
        self._committed = False
        self._finished = False
        self._undo: list[Callable[[], object]] = []
        self._applied: list[tuple[frozenset[Resource], frozenset[Resource]]] = []
        self._leases: list[tuple[str, str, str]] = []
        self._reserved: list[HostPort] = []
        self._put: list[Network | Container | Policy] = []
        self._writes: list[Callable[[Transaction], None]] = []
        """What else the outcome is made of."""

    # -- steps --------------------------------------------------------------------------------------------------------

    def lease(self, network: Network, owner: str, version: Literal[4, 6], wanted: str = "") -> str:
        """An address of the network, as text. It is stored before the kernel gets it."""
        address = self._core.addresses.lease(network, owner, version, ip_address(wanted) if wanted else None)
        self._undo.append(lambda: self._core.addresses.release(network.id, address))
        self._leases.append((network.id, address, owner))
        return address

    async def reserve(self, asks: list[PortAsk]) -> list[int]:
        """Ports of the host, all that are asked for or none; the number of each."""
        taken = await self._core.briefly(self._core.kernel.reserve_all, asks)
        self._reserved += [port for ports in taken for port in ports]
        return [ports[0].port for ports in taken]

    async def apply(self, want: Iterable[Resource], have: Iterable[Resource] = ()) -> None:
        """Make the kernel go from `have` to `want`, after the intent and its leases are on disk.

        What others took away (a table, a bridge) and is missed now is put back, also while healing leaves it to them.
        """
        if not self._finished:
            self._begin()
        wanted, had = frozenset(want), frozenset(have)
        core = self._core
        try:
            await core.apply(wanted, had)
        except KernelRefused as e:
            if core.put_back is None or not await core.put_back(wanted, had):
                raise
            log.warning("%s is tried again: what it stands on had been taken away (%s)", self._intent.what, e)
            await core.apply(wanted, had)
        self._applied.append((wanted, had))

    def change(self, undo: Callable[[], object]) -> None:
        """Say how a change of the state in memory, made just now, is taken back."""
        self._undo.append(undo)

    def put(self, thing: Network | Container | Policy) -> None:
        """Store the thing, as it is when the operation finishes."""
        if not any(thing is other for other in self._put):
            self._put.append(thing)

    def forget(self, thing: Network | Container | Policy) -> None:
        self._writes.append(lambda t: t.delete(_kind(thing), thing.id))

    def release(self, network_id: str, addresses: Iterable[str], owner: str) -> None:
        """Give all leases of an owner back when the operation finishes; "" among `addresses` is none."""
        self._writes.append(lambda t: t.release(owner))
        for address in filter(None, addresses):
            self._core.addresses.release(network_id, address)
            self._undo.append(partial(self._core.addresses.restore, network_id, address, owner))

    def set(self, name: str, value: str) -> None:
        self._writes.append(lambda t: t.set(name, value))

    # -- end ----------------------------------------------------------------------------------------------------------

    def commit(self) -> None:
        """Write the outcome before the kernel is touched, in place of an intent: one transaction, and not two. When the kernel
        refuses, what was is written again; after a crash in between the next start does the rest. Only for what the next start
        can do, and only when the model is as it will be. Where something goes as well, this does nothing, and `finish` all."""
        if not self._writes:
            self._write()
            self._committed = True

    def _begin(self) -> None:
        if self._begun or self._committed:
            return
        with self._core.store.transaction() as t:
            t.begin(self._intent)
            for lease in self._leases:
                t.lease(*lease)
        self._begun = True

    def finish(self) -> None:
        """Write the outcome; nothing is taken back after this. Removals call it before they touch the kernel, so that a crash
        in between leaves a kernel with too much in it, which the next start sweeps up, and never a model with too much."""
        if self._finished:
            return
        if not self._committed and (self._begun or self._put or self._writes or self._leases):
            self._write()
        self._finished = True

    def _write(self) -> None:
        with self._core.store.transaction() as t:
            if not self._begun:
                for lease in self._leases:
                    t.lease(*lease)
            for thing in self._put:
                t.put(_kind(thing), thing.id, thing)
            for write in self._writes:
                write(t)
            if self._begun:
                t.finish(self._intent)

    async def roll_back(self) -> None:
        """Take everything back that was done. Never raises: what cannot be undone is logged and left to the next start."""
        if self._finished:
            return
        if self._begun or self._committed or self._reserved:
            log.info("rolling back: %s", self._intent.what)
        for want, have in reversed(self._applied):
            try:
                await self._core.apply(have, want)
            except NetengineError as e:
                log.error("while rolling back %s: %s", self._intent.what, e)
        await self._core.briefly(self._core.kernel.release, self._reserved)
        for undo in reversed(self._undo):
            undo()
        if self._begun or self._committed:
            try:
                with self._core.store.transaction() as t:
                    for _, _, owner in self._leases:
                        t.release(owner)
                    if self._committed:
                        for thing in self._put:  # as it is again
                            t.put(_kind(thing), thing.id, thing)
                    t.finish(self._intent)
            except NetengineError as e:
                log.error("while rolling back %s: %s", self._intent.what, e)


def _kind(thing: Network | Container | Policy) -> str:
    """What the store files it under."""
    return type(thing).__name__.lower()
