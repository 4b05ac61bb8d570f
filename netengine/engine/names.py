"""What the name server knows: which names each network has, which networks each sandbox is on.

The name server is a process of its own (netengine.dns); it goes on answering while the daemon is away. Here the model is turned
into what it is told, incrementally after each change and as a whole when either side has been away. A change is told before
the API call that made it is answered. Nothing here is needed for a change to succeed: when the name server is away, it is
brought back and told everything.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import struct
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from netengine import failpoints
from netengine.cluster.records import EndpointRecord
from netengine.dns.client import (
    Entry,
    Explanation,
    NameServer,
    NetworkChange,
    Ports,
    Settings,
    Statistics,
    spawn,
)
from netengine.dns.client import Network as Zone
from netengine.engine import sandbox
from netengine.engine.core import Core
from netengine.engine.files import resolv_conf_directories, resolvers
from netengine.engine.naming import entry_elsewhere, links_of, names_of, ndots, services_of
from netengine.errors import NetengineError, Unavailable
from netengine.kernel.observe import name_ports
from netengine.kernel.resources import NameService
from netengine.model import Container, Network
from netengine.runtime.channel import Watch, readable
from netengine.runtime.syscalls import IN_CLOSE_WRITE, IN_CREATE, IN_MOVED_TO

log = logging.getLogger(__name__)

_AGAIN_FIRST, _AGAIN_MOST = 0.05, 5.0
_END_SECONDS = 5.0
_WATCH_SECONDS = 3.0
_NOBODY = 65534
Asked = Sequence[Coroutine[Any, Any, object]]
"""What the name server was asked and has yet to answer."""

_REWRITTEN = IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE  # the last for a link that is made


class Names:
    """Keeps the name server alive and informed. One instance, owned by the engine."""

    def __init__(self, core: Core, directory: Path, log_path: Path) -> None:
        self._core = core
        self._socket = directory / "dns.sock"
        self._log_path = log_path
        self._server: NameServer | None = None
        self._started: NameServer | None = None  # the last one that is a child of this daemon
        self._lock = asyncio.Lock()
        self._closing = False

    # -- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Find the name server of an earlier daemon, or start one; tell it everything; watch it, and the host's servers.

        Without one everything else works: it is tried again until there is one.
        """
        try:
            await self._bring_up()
        except NetengineError as e:
            log.error("no name server: %s", e)
        self._core.kernel.name_ports.clear()  # from here on others may have changed them
        self._core.background(asyncio.create_task(self._keep_alive(), name="name server"))
        self._core.background(asyncio.create_task(self._follow_host(), name="resolv.conf"))

    async def close(self) -> None:
        """Let go of the name server. It goes on answering; where nobody could ask it, it ends."""
        self._closing = True
        server, self._server = self._server, None
        if server is None:
            return
        if not any(sandbox.needs_names(self._core.state, c) for c in self._core.state.containers.values()):
            with suppress(NetengineError):
                await server.stop()
        await server.close()

    async def _bring_up(self) -> None:
        try:
            server = await self._find()
        except NetengineError:
            await _end_listener(self._socket)  # one that hangs, or that an earlier version of netengine started
            server = await spawn(self._socket, self._log_path, uid=_NOBODY, gid=_NOBODY)
            if self._started is not None and self._started.process is not None:
                self._started.process.poll()  # reaps the one before
            self._started = server
        async with self._lock:
            self._server = server
            await self._tell_everything(server)

    async def _find(self) -> NameServer:
        """The name server that runs. Raises Unavailable when it does not answer, or speaks of another version."""
        server = await NameServer.connect(self._socket)
        try:
            await server.hello()
        except BaseException:
            await server.close()
            raise
        return server

    async def _keep_alive(self) -> None:
        delay = _AGAIN_FIRST
        while True:
            if self._server is not None:
                await self._watch(self._server)
                if self._closing:
                    return
                log.warning("the name server has ended; starting it again")
            try:
                await self._bring_up()
                delay = _AGAIN_FIRST
            except NetengineError as e:
                log.error("no name server: %s", e)
                await asyncio.sleep(delay)
                delay = min(delay * 2, _AGAIN_MOST)

    async def _watch(self, server: NameServer) -> None:
        """Return when the name server has ended, or hangs: that is found out here, and not first by a call of the API."""
        while not server.closed.is_set():
            try:
                async with asyncio.timeout(_WATCH_SECONDS):
                    await server.closed.wait()
            except TimeoutError:
                with suppress(NetengineError):  # closed by this
                    await server.hello()

    async def _tell_everything(self, server: NameServer) -> None:
        """The whole model, and sockets for every sandbox that it has none of."""
        _, known = await server.hello()
        containers = [c for c in self._core.state.containers.values() if sandbox.needs_names(self._core.state, c)]
        for container in containers:
            await self._hand_over(server, container, known.get(container.sandbox_id))
        networks = {n.id: self._network(n) for n in self._core.state.networks.values() if not n.predefined}
        # Sockets of sandboxes that are no longer there are closed by this.
        await server.sync(networks, {c.sandbox_id: self._settings(c) for c in containers}, self._host_servers())

    async def _hand_over(self, server: NameServer, container: Container, has: Ports | None) -> None:
        """Sockets of a sandbox: those just opened, or new ones when the name server's are not where the rules lead."""
        core = self._core
        ns = container.sandbox_id
        fresh = core.kernel.take_name_sockets(ns)
        if not fresh:
            ports = core.kernel.name_ports.pop(ns, None) or await core.on_kernel(name_ports, core.kernel, ns)
            enough = has is not None and (has.own or not sandbox.servers_of(core.state, container))
            if has is not None and enough and ports == (has.udp, has.tcp):
                return
            wanted = {r for r in sandbox.render(core.state, container) if isinstance(r, NameService)}
            await core.on_kernel(core.kernel.apply, wanted, ())
            fresh = core.kernel.take_name_sockets(ns)
        await _add(server, ns, fresh)

    def _host_servers(self) -> list[str]:
        """Asked from the host, for containers without servers of their own."""
        return resolvers()

    async def _follow_host(self) -> None:
        """Tell the name server when the host's resolv.conf changes: a VPN comes up, a laptop moves."""
        told = self._host_servers()
        while True:
            # Before the look, and anew after each change: the file may have become a link to somewhere else.
            try:
                with ExitStack() as stack:
                    directories = resolv_conf_directories()
                    watches = [stack.enter_context(Watch(d, _REWRITTEN)) for d in directories]
                    now = self._host_servers()
                    if now != told:
                        log.info("the host's name servers are now %s", ", ".join(now) or "none")
                        told = now
                        await self._resolvers_changed(now)
                    if directories == resolv_conf_directories():
                        await _any_changed(watches)
            except OSError as e:
                log.warning("changes of the host's resolv.conf are not seen for a moment: %s", e)
                await asyncio.sleep(_AGAIN_MOST)

    # -- changes ------------------------------------------------------------------------------------------------------

    # When one of these returns, what there is to say is on its way, if the name server can be told now. To await what it
    # returns is to wait until the name server has it.

    def opened(self, container: Container) -> Coroutine[Any, Any, None]:
        """The container's sandbox exists, or one more network is in it."""

        def tell(server: NameServer) -> Asked:
            if not self._has_entries(container):
                return ()
            core, ns = self._core, container.sandbox_id
            fresh = core.kernel.take_name_sockets(ns) if sandbox.needs_names(core.state, container) else []
            handed = [_add(server, ns, fresh)] if fresh else []
            put = {
                n.id: NetworkChange(name=n.name, put=self._entries([container], n))
                for n in self._named_networks(container)
            }
            return *handed, server.update(put, {ns: self._settings(container)})

        return self._tell(tell)

    def left(self, container: Container, network: Network, endpoint_id: str) -> Coroutine[Any, Any, None]:
        """An endpoint of a sandbox that lives on is gone."""
        ns = container.sandbox_id
        gone = {} if network.predefined else {network.id: NetworkChange(delete=(endpoint_id,))}
        if sandbox.needs_names(self._core.state, container):
            # Also when the default bridge was left: it may have been the way out, without which nothing is forwarded.
            settings = self._settings(container)
            return self._tell(lambda server: (server.update(gone, {ns: settings}),))
        # Its sockets would keep the namespace alive.
        return self._tell(lambda server: (server.update(gone, {ns: None}), server.remove(ns)) if gone else ())

    def closing(self, container: Container) -> Coroutine[Any, Any, None]:
        """The sandbox is about to go: its names end, and the name server lets go of its namespace."""
        ns, named = container.sandbox_id, self._named_networks(container)
        gone = {n.id: NetworkChange(delete=(container.endpoints[n.id].id,)) for n in named}
        return self._tell(lambda server: (server.update(gone, {ns: None}), server.remove(ns)) if named else ())

    def removed(self, network: Network) -> Coroutine[Any, Any, None]:
        gone = {} if network.predefined else {network.id: None}
        return self._tell(lambda server: (server.update(gone),) if gone else ())

    def elsewhere(
        self, network: Network, entries: Mapping[str, EndpointRecord | None] | None = None
    ) -> Coroutine[Any, Any, None]:
        """Endpoints on other hosts have come or gone (None); without `entries` all that there are have come."""
        told = self._core.state.fabric.named.get(network.id, {}) if entries is None else entries
        put = {identity: entry_elsewhere(record) for identity, record in told.items() if record is not None}
        gone = tuple(identity for identity, record in told.items() if record is None)
        change = {network.id: NetworkChange(name=network.name, put=put, delete=gone)}
        return self._tell(lambda server: (server.update(change),) if put or gone else ())

    def _resolvers_changed(self, servers: list[str]) -> Coroutine[Any, Any, None]:
        return self._tell(lambda server: (server.update(host_servers=servers),))

    def _tell(self, tell: Callable[[NameServer], Asked]) -> Coroutine[Any, Any, None]:
        if self._lock.locked():  # it is being told everything: that first
            return self._tell_later(tell)
        return _answered(tell(self._server) if self._server is not None else ())

    async def _tell_later(self, tell: Callable[[NameServer], Asked]) -> None:
        async with self._lock:
            asked = tell(self._server) if self._server is not None else ()
        await _answered(asked)

    async def stats(self) -> Statistics:
        """Counters by sandbox. Raises Unavailable."""
        return await self._need().stats()

    async def explain(self, container: Container, name: str, kind: str) -> Explanation:
        """Which server answers a question of the container, with what, and why. Raises Unavailable."""
        return await self._need().explain(container.sandbox_id, name, kind)

    async def stop(self) -> None:
        """End the name server of these directories, if one runs."""
        with suppress(NetengineError):
            server = await NameServer.connect(self._socket)
            try:
                await server.stop()
            finally:
                await server.close()

    def _need(self) -> NameServer:
        if self._server is None:
            raise Unavailable("the name server is not running; it is being started")
        return self._server

    # -- the model, as the name server sees it ------------------------------------------------------------------------

    def _has_entries(self, container: Container) -> bool:
        return bool(self._named_networks(container))

    def _named_networks(self, container: Container) -> list[Network]:
        # By what nobody asked for (docker_gwbridge) nobody is found.
        networks = (self._core.state.networks[n] for n in container.endpoints if n in container.attachments)
        return [n for n in networks if not n.predefined]

    def _network(self, network: Network) -> Zone:
        users = [c for c in self._core.state.attached_to(network.id) if network.id in c.attachments]
        elsewhere = self._core.state.fabric.named.get(network.id, {})
        entries = {identity: entry_elsewhere(record) for identity, record in elsewhere.items()}
        return Zone(network.name, entries | self._entries(users, network))

    def _entries(self, containers: Iterable[Container], network: Network) -> dict[str, Entry]:
        out = {}
        for container in containers:
            endpoint = container.endpoints[network.id]
            names = tuple(names_of(container, network))
            ipv4, ipv6 = (tuple(filter(None, [ip])) for ip in (endpoint.ip, endpoint.ip6))
            out[endpoint.id] = Entry(names, ipv4, ipv6, services_of(container))
        return out

    def _settings(self, container: Container) -> Settings:
        config = self._core.config
        return Settings(
            networks=tuple(n.id for n in self._named_networks(container)),
            links=links_of(container, self._named_networks(container)),
            servers=sandbox.servers_of(self._core.state, container),
            internal=not sandbox.has_way_out(self._core.state, container),
            ndots=ndots(container.host_config.dns_options or config.dns_opts),
        )


async def _end_listener(path: Path) -> None:
    """Kill the process that listens at a socket, if there is one."""
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.settimeout(0)  # with a full backlog, connecting would wait for the very process that hangs
            sock.connect(str(path))
        except OSError:
            return
        pid, _, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    log.warning("the name server, process %d, does not answer as it should; it is replaced", pid)
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        async with asyncio.timeout(_END_SECONDS):
            await readable(descriptor)
    except (ProcessLookupError, TimeoutError):
        pass
    finally:
        os.close(descriptor)


async def _any_changed(watches: Iterable[Watch]) -> None:
    """Return when there was a change under one of them."""
    tasks = [asyncio.create_task(watch.changed()) for watch in watches]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        # The others must have let go of their descriptors before these are closed.
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _answered(asked: Asked) -> None:
    """Wait for the answers. One that does not come is no failure of who waits for it."""
    for answer in asked:
        try:
            await answer
        except NetengineError as e:
            log.warning("the name server was not told of a change (it will be, with everything else): %s", e)


def _add(server: NameServer, ns: str, sockets: list[socket.socket]) -> Coroutine[Any, Any, None]:
    """Hand sockets over; the name server's duplicates are the ones that stay."""
    failpoints.reach("names: before the hand-over")
    try:
        answer = server.add(ns, sockets[0], sockets[1], sockets[2:])
    finally:
        for opened in sockets:
            opened.close()

    async def handed_over() -> None:
        await answer
        failpoints.reach("names: handed over")

    return handed_over()
