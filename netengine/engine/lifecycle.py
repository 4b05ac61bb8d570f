"""The life of a container: its sandbox built, its process started and watched, both taken down again.

What a user may ask for and when is `containers.py`'s business; here is how it is done. Slow steps (the OCI runtime) happen
outside the writer lock, under a lock of the container's own.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from netengine import failpoints
from netengine.engine import links, sandbox, spec, surroundings
from netengine.engine.core import Core, Operation, now, stamp
from netengine.engine.dhcp import Dhcp
from netengine.engine.files import EtcFiles
from netengine.engine.names import Names
from netengine.engine.overlay import gateway
from netengine.engine.overlay.fabric import Claim
from netengine.engine.overlay.overlay import Overlay
from netengine.errors import Conflict, Invalid, KernelRefused, NetengineError, Unavailable
from netengine.kernel.resources import Resource
from netengine.model import Container, Network
from netengine.runtime import ExitStatus, Stream

log = logging.getLogger(__name__)

DEFAULT_STOP_TIMEOUT = 10
"""Seconds between SIGTERM and SIGKILL, as Docker's."""

_KILL_GRACE = 10.0
_RESTART_FIRST, _RESTART_MOST, _RESTART_RESET = 0.1, 60.0, 10.0


class Lifecycle:
    """Starts and ends containers. One instance, owned by the engine."""

    def __init__(self, core: Core, files: EtcFiles, names: Names, leases: Dhcp, overlay: Overlay) -> None:
        self._core = core
        self._dhcp = leases
        self._overlay = overlay
        self._files = files
        self._names = names
        self._locks: dict[str, asyncio.Lock] = {}
        self._early: dict[str, list[asyncio.Future[Stream]]] = {}
        self._waiters: dict[str, list[tuple[str, asyncio.Future[int]]]] = {}
        self._ending: set[str] = set()  # whose process is gone and whose sandbox is being taken down
        self._delay: dict[str, float] = {}
        # When each last started, by the event loop's clock: the wall clock may jump meanwhile.
        self._began: dict[str, float] = {}

    @asynccontextmanager
    async def exclusive(self, container: Container) -> AsyncIterator[None]:
        """Only one start, stop or removal of a container at a time."""
        lock = self._locks.setdefault(container.id, asyncio.Lock())
        async with lock:
            yield
        if container.id not in self._core.state.containers and not lock.locked():
            self._locks.pop(container.id, None)

    def has_process(self, container: Container) -> bool:
        """Whether its image runs a process (the built-in image `sandbox` does not)."""
        return container.image_id != self._core.images.find(spec.SANDBOX_IMAGE).id

    # -- start --------------------------------------------------------------------------------------------------------

    async def start(self, container: Container) -> None:
        """Build the sandbox and start the process. On failure everything is as before, but for the recorded error."""
        core = self._core
        try:
            await self._open_sandbox(container)
            try:
                await self._dhcp.bind(container)
                pid = await self._start_process(container) if self.has_process(container) else 0
            except BaseException:
                await asyncio.shield(self._close_sandbox(container))
                raise
        except NetengineError as e:
            container.state.error = e.message
            container.state.exit_code = exit_code_of(e)
            self._fail_early(container, e)
            async with core.operation(f"record why {container.name} did not start") as operation:
                operation.put(container)
            if container.host_config.auto_remove:
                await self.remove(container)
            raise
        state = container.state
        state.status, state.pid, state.error = "running", pid, ""
        state.exit_code, state.oom_killed, state.stopped_by_user = 0, False, False
        state.started_at, state.finished_at = now(), ""
        self._began[container.id] = asyncio.get_running_loop().time()
        async with core.operation(f"record that {container.name} runs") as operation:
            operation.put(container)
        self.publish(container, "start")
        if pid:
            self.watch(container)

    async def _open_sandbox(self, container: Container) -> None:
        networks = [self._core.state.networks[n] for n in container.attachments]
        async with self._overlay.claimed(container, networks if sandbox.owns_sandbox(container) else ()) as claims:
            await self._build_sandbox(container, claims)
        await self._names.opened(container)
        self.refresh_files(container)
        for network in self._networks(container):
            self._core.announce(network, container, container.endpoints[network.id])
            self._core.publish_network("connect", network, container)

    async def _build_sandbox(self, container: Container, claims: Mapping[str, Claim]) -> None:
        core = self._core
        async with core.operation(f"start {container.name}") as operation:
            target = sandbox.joins(container)
            if target:
                other = core.state.container(target)
                if not other.running:
                    raise Conflict(f"cannot join network namespace of a non running container: {other.name}")
                container.sandbox_id = other.sandbox_id
            elif sandbox.owns_sandbox(container):
                container.sandbox_id = container.id
            operation.change(lambda: setattr(container, "sandbox_id", ""))
            if sandbox.owns_sandbox(container):
                for network_id in sandbox.start_order(core.state, container):
                    network = core.state.networks[network_id]
                    surroundings.room_on(core.state, network)
                    wish, claim = container.attachments[network_id], claims.get(network_id)
                    sandbox.build_endpoint(core, operation, container, network, wish, claim)
                gateway.settle(core, operation, container)
                await sandbox.settle_ports(core, operation, container)
            operation.put(container)
            await operation.apply(sandbox.render(core.state, container))

    async def _start_process(self, container: Container) -> int:
        core = self._core
        self._write_files(container)
        image = core.images.find(container.image_id)
        netns = None
        if container.host_config.network_mode != "host":
            netns = str(core.kernel.ns_path(container.sandbox_id))
        failpoints.reach("runtime: before create")
        pid = await core.runtime.create(spec.build(container, image, netns, self._files.paths(container)))
        failpoints.reach("runtime: created")
        for waiting in self._early.pop(container.id, []):
            if not waiting.done():
                waiting.set_result(await core.runtime.attach(container.id))
        await core.runtime.start(container.id)
        failpoints.reach("runtime: started")
        return pid

    def host_gateways(self) -> tuple[str, ...]:
        """What `--add-host name:host-gateway` stands for: daemon.json's addresses, else the default bridge's."""
        bridge = self._core.state.network_named("bridge")
        own = tuple(s.gateway for s in bridge.subnets if s.gateway) if bridge else ()
        return self._core.config.host_gateway_ips or own

    def refresh_files(self, container: Container, network: Network | None = None) -> None:
        """After an endpoint came or went, on one network or (None) on whichever, or the container got another name: its files,
        and those of its linkers, in which it has its address on the default bridge."""
        default = links.home(self._core.state)
        touched = network.predefined if network else bool(default and default.id in container.attachments)
        linkers = [linker for linker, _ in links.linkers(self._core.state, container)] if touched else []
        for one in (container, *linkers):
            if one.running and self.has_process(one):
                self._write_files(one)

    def _write_files(self, container: Container) -> None:
        state = self._core.state
        self._files.refresh(
            container,
            self.host_gateways(),
            links.host_lines(state, container),
            embedded=sandbox.needs_names(state, container),
            ipv6=not sandbox.refuses_ipv6(container, "lo"),
        )

    # -- end ----------------------------------------------------------------------------------------------------------

    def watch(self, container: Container) -> None:
        """Notice when the process ends."""
        run = container.state.started_at
        self._core.background(asyncio.create_task(self._watch(container, run), name=f"watch {container.name}"))

    async def _watch(self, container: Container, run: str) -> None:
        status = await self._core.runtime.wait(container.id)
        async with self.exclusive(container):
            if container.running and container.state.started_at == run:
                await self.ended(container, status)

    async def ended(self, container: Container, status: ExitStatus) -> None:
        """Record how the process ended and take its sandbox down; then restart or remove it as was asked."""
        state = container.state
        state.status, state.pid = "exited", 0
        state.exit_code, state.oom_killed = status.code, status.oom_killed
        state.finished_at = stamp(status.finished_at)
        self._ending.add(container.id)
        try:
            await self._close_sandbox(container)
        finally:
            self._ending.discard(container.id)
            self.publish(container, "die", exitCode=str(status.code))
            self.settle(container, "exited", status.code)
        if container.host_config.auto_remove and not self._will_restart(container):
            await self.remove(container)
        elif self._will_restart(container):
            self._core.background(asyncio.create_task(self._restart_later(container)))

    async def _close_sandbox(self, container: Container) -> None:
        core = self._core
        networks = self._networks(container)
        if self.has_process(container):
            failpoints.reach("runtime: before delete")
            await core.runtime.delete(container.id)
        await self._names.closing(container)
        await self._dhcp.release(container)
        async with core.operation(f"take down the sandbox of {container.name}") as operation:
            rendered = sandbox.render(core.state, container)
            self._empty(operation, container)
            operation.put(container)
            operation.finish()
            await operation.apply((), rendered)
        await self._overlay.left()
        self.refresh_files(container)
        for network in networks:
            self._core.publish_network("disconnect", network, container)

    def _empty(self, operation: Operation, container: Container) -> None:
        for network_id in list(container.endpoints):
            sandbox.drop_endpoint(self._core, operation, container, network_id)
        container.ports = []
        container.sandbox_id = ""

    def forget_sandbox(self, operation: Operation, container: Container) -> frozenset[Resource]:
        """For a container that is found not to run: its sandbox leaves the model; answers what was in the kernel."""
        rendered = sandbox.render(self._core.state, container)
        self._empty(operation, container)
        operation.put(container)
        return rendered

    async def stop(self, container: Container, timeout: int | None) -> None:
        """Ask the process to end (its stop signal), then kill it after `timeout` seconds (-1: never)."""
        if not self.has_process(container):
            await self.ended(container, ExitStatus(0, datetime.now(UTC)))
            self.publish(container, "stop")
            return
        runtime = self._core.runtime
        if container.state.status == "paused":
            await runtime.unpause(container.id)
        wanted = timeout if timeout is not None else container.config.stop_timeout
        seconds = DEFAULT_STOP_TIMEOUT if wanted is None else wanted
        ending = asyncio.ensure_future(runtime.wait(container.id))
        try:
            await self.signal(container, signal_number(container.config.stop_signal or "SIGTERM"))
            await asyncio.wait([ending], timeout=None if seconds < 0 else seconds)
            if not ending.done():
                await self.signal(container, signal.SIGKILL)
                await asyncio.wait([ending], timeout=_KILL_GRACE)
            if not ending.done():
                raise KernelRefused(f"container {container.name} did not end within {_KILL_GRACE:g} s of SIGKILL")
        finally:
            if not ending.done():
                ending.cancel()
        await self.ended(container, ending.result())
        self.publish(container, "stop")

    async def signal(self, container: Container, number: int) -> None:
        """Send a signal; that the process has just ended is no error."""
        try:
            await self._core.runtime.kill(container.id, number)
        except Conflict:
            log.debug("%s had ended before signal %d", container.name, number)

    async def remove(self, container: Container) -> None:
        """Forget a container that does not run, with its writable layer and log."""
        core = self._core
        async with core.operation(f"remove {container.name}") as operation:
            operation.forget(container)
            operation.finish()
            core.state.containers.pop(container.id, None)
        await core.runtime.remove(container.id)
        self._files.remove(container)
        self.publish(container, "destroy")
        self.settle(container, "removed", container.state.exit_code)
        self._delay.pop(container.id, None)
        self._began.pop(container.id, None)

    # -- restart policies ---------------------------------------------------------------------------------------------

    def _will_restart(self, container: Container) -> bool:
        policy, state = container.host_config.restart_policy, container.state
        if state.stopped_by_user:
            return False
        if policy.name == "on-failure":
            most = policy.maximum_retry_count
            return state.exit_code != 0 and (most == 0 or state.restart_count < most)
        return policy.name in ("always", "unless-stopped")

    async def _restart_later(self, container: Container) -> None:
        state = container.state
        lasted = asyncio.get_running_loop().time() - self._began.get(container.id, 0.0)
        last = 0.0 if lasted > _RESTART_RESET else self._delay.get(container.id, 0.0)
        delay = self._delay[container.id] = min(max(last * 2, _RESTART_FIRST), _RESTART_MOST)
        run = state.started_at
        await asyncio.sleep(delay)
        async with self.exclusive(container):
            alive = container.id in self._core.state.containers
            if alive and not container.running and state.started_at == run and not state.stopped_by_user:
                state.restart_count += 1
                try:
                    await self.start(container)
                except Unavailable as e:  # what it needs is away, a majority of managers say: its policy still holds
                    log.warning("container %s is started again later: %s", container.name, e.message)
                    self._core.background(asyncio.create_task(self._restart_later(container)))

    # -- those who wait -----------------------------------------------------------------------------------------------

    def when(self, container: Container, condition: str) -> asyncio.Future[int]:
        """A future of the exit code: at the `next-exit`, when `not-running`, or when `removed`.

        A container has ended when its address and ports are free, not as soon as its process is gone.
        """
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        over = not container.running and container.id not in self._ending
        if condition == "not-running" and over and container.state.status != "created":
            future.set_result(container.state.exit_code)
        elif condition == "not-running" and container.state.status == "created":
            future.set_result(0)
        else:
            self._waiters.setdefault(container.id, []).append((condition, future))
        return future

    def settle(self, container: Container, what: str, code: int) -> None:
        """Answer those who wait for the container to be `exited` or `removed`."""
        left = []
        for condition, future in self._waiters.pop(container.id, []):
            if what == "removed" or condition != "removed":
                if not future.done():
                    future.set_result(code)
            else:
                left.append((condition, future))
        if left:
            self._waiters[container.id] = left

    async def attach(self, container: Container) -> Stream:
        """The container's streams; for one that was created and not started, as soon as it is."""
        if not self.has_process(container):
            raise Conflict(f"container {container.name} is a sandbox without a process: there is nothing to attach to")
        if container.running:
            return await self._core.runtime.attach(container.id)
        future: asyncio.Future[Stream] = asyncio.get_running_loop().create_future()
        self._early.setdefault(container.id, []).append(future)
        return await future

    def _fail_early(self, container: Container, error: NetengineError) -> None:
        for future in self._early.pop(container.id, []):
            if not future.done():
                future.set_exception(error)
        self.settle(container, "exited", container.state.exit_code)

    # -- events -------------------------------------------------------------------------------------------------------

    def publish(self, container: Container, action: str, **more: str) -> None:
        attributes = (container.config.labels or {}) | {"image": container.image, "name": container.name} | more
        self._core.events.publish("container", action, container.id, **attributes)

    def _networks(self, container: Container) -> list[Network]:
        return [self._core.state.networks[n] for n in container.endpoints if n in self._core.state.networks]


def exit_code_of(error: NetengineError) -> int:
    """The exit code of a process that did not start: 127 for no such command, 126 for one that cannot be run, as a shell's."""
    text = error.message
    if "executable file not found" in text or "no such file or directory" in text:
        return 127
    return 126 if "permission denied" in text or "is a directory" in text else 128


def signal_number(text: str) -> int:
    """`SIGTERM`, `TERM` or `15` as a number. Raises Invalid with Docker's text."""
    name = text.upper()
    if name.isascii() and name.isdigit():
        number = int(name)
    else:
        full = name if name.startswith("SIG") else f"SIG{name}"
        number = int(signal.Signals.__members__.get(full, 0))
    if not 0 < number < signal.NSIG:
        raise Invalid(f"invalid signal: {text[:40]}")
    return number
