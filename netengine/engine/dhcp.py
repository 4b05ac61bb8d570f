"""Addresses that a DHCP server of the wire grants: got when a container starts or joins, kept while it runs, given back then.

The link is made first, without an address; then the server is asked, outside the writer lock; then the answer becomes part of
the model and the kernel in an operation of its own. Leases are stored with their endpoints, so a daemon that starts again goes
on with them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import msgspec

from netengine.drivers.parents import DHCP
from netengine.engine import sandbox
from netengine.engine.core import Core, Operation
from netengine.errors import Forbidden, Invalid, NetengineError, Unavailable
from netengine.kernel.boottime import boot_seconds
from netengine.model import Container, DhcpLease, Endpoint, Network

if TYPE_CHECKING:
    from netengine.kernel import dhcp as client

log = logging.getLogger(__name__)

PATIENCE = 12.0
"""Seconds in which a server must have granted an address to a container that starts: four questions."""

_LATE = 0.7
"""The part of what is left of a lease after which a client that has not renewed it is given up: after T1, before T2."""

_GRACE = 30.0
"""Seconds after the daemon's start in which a lease that ran out meanwhile is kept, to be asked for again."""


def check_network(network: Network, *, has_subnets: bool) -> None:
    """Raise Invalid or Forbidden when a network cannot leave its addresses to a DHCP server."""
    parent = network.parent
    if parent is None or (network.driver == "ipvlan" and parent.mode != "l2"):
        raise Invalid(
            f"the IPAM driver {DHCP} needs a network whose containers are on the wire of a host's interface: driver macvlan, "
            f"or ipvlan in mode l2, not {network.driver}{f' in mode {parent.mode}' if parent else ''}"
        )
    if parent.own:
        raise Invalid(f"the IPAM driver {DHCP} needs a parent with a server on its wire: give -o parent=INTERFACE")
    if has_subnets:
        raise Invalid(
            f"with the IPAM driver {DHCP} the server says which subnet there is: leave --subnet and --gateway out"
        )
    if network.enable_ipv6 or not network.enable_ipv4:
        raise Forbidden(
            f"the IPAM driver {DHCP} is for IPv4 alone in this version of netengine: leave --ipv6 and --ipv4 out"
        )
    if parent.host_link:
        raise Invalid("host_access=true needs an address for the host: give a --subnet, or leave it out with DHCP")


class Dhcp:
    """The DHCP clients of all endpoints that need one. One instance, owned by the engine."""

    def __init__(self, core: Core, told: Callable[[Container], Awaitable[None]]) -> None:
        """`told` hears of each container whose address has changed by a lease."""
        self._core = core
        self._told = told
        self._clients: dict[str, client.DhcpClient] = {}
        self._timers: dict[str, list[asyncio.TimerHandle]] = {}
        self._started = boot_seconds()

    # -- getting and giving back --------------------------------------------------------------------------------------

    async def bind(self, container: Container) -> None:
        """Get addresses for all endpoints of a container that have none yet. Raises Unavailable when no server answers in
        time; then nothing is left running."""
        waiting = [(n, e) for n, e in self._endpoints(container) if e.id not in self._clients]
        if not waiting:
            return
        asked = [self._bind(container, network, endpoint) for network, endpoint in waiting]
        try:
            for outcome in await asyncio.gather(*asked, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    raise outcome
        except BaseException:
            for _, endpoint in waiting:
                await self._end(endpoint, release=True)
            raise
        await self._told(container)

    async def _bind(self, container: Container, network: Network, endpoint: Endpoint) -> None:
        got: asyncio.Future[DhcpLease] = asyncio.get_running_loop().create_future()

        def first(lease: DhcpLease | None) -> None:
            if lease is not None and not got.done():
                got.set_result(lease)

        machine = await self._start(container, network, endpoint, first)
        if not await machine.bound(PATIENCE):
            parent = network.parent.link if network.parent else ""
            raise Unavailable(
                f"no DHCP server granted {container.name} an address on network {network.name} within {PATIENCE:g} s; "
                f"is there a server on the wire of {parent}, with addresses left?"
            )
        await self._take(container, network, endpoint, await got)

    async def release(self, container: Container, network_id: str = "") -> None:
        """Tell the servers that the addresses of a container, or of its endpoint on one network, are free."""
        for network, endpoint in self._endpoints(container):
            if network_id in ("", network.id):
                await self._end(endpoint, release=True)

    def _endpoints(self, container: Container) -> list[tuple[Network, Endpoint]]:
        networks = self._core.state.networks
        pairs = [(networks[n], e) for n, e in container.endpoints.items() if n in networks]
        return [(network, endpoint) for network, endpoint in pairs if network.ipam_driver == DHCP]

    async def _end(self, endpoint: Endpoint, *, release: bool) -> None:
        self._disarm(endpoint)
        machine = self._clients.pop(endpoint.id, None)
        if machine is not None:
            await machine.close(release=release)

    # -- a daemon's life ------------------------------------------------------------------------------------------------

    async def resume(self) -> None:
        """After a start of the daemon: go on with the leases of containers that run."""
        for container in list(self._core.state.containers.values()):
            for network, endpoint in self._endpoints(container) if container.sandbox_id else ():
                if endpoint.id not in self._clients:
                    await self._again(container, network, endpoint)

    async def mended(self, container: Container) -> None:
        """Something was put right in the container's sandbox. Where a link was made anew, the old one's socket is dead."""
        for network, endpoint in self._endpoints(container):
            if endpoint.dhcp is not None:
                await self._again(container, network, endpoint)

    async def _again(self, container: Container, network: Network, endpoint: Endpoint) -> None:
        """A new client, which asks for the lease that there is."""
        await self._end(endpoint, release=False)
        try:
            await self._start(container, network, endpoint)
        except (OSError, NetengineError) as e:
            log.error("the DHCP lease of %s on %s cannot be renewed: %s", container.name, network.name, e)
            if endpoint.dhcp is not None:
                self._expire_at(container, network, endpoint, endpoint.dhcp)

    async def close(self) -> None:
        """End all clients and keep the leases: the containers run on."""
        for timer in (t for timers in self._timers.values() for t in timers):
            timer.cancel()
        self._timers.clear()
        clients, self._clients = list(self._clients.values()), {}
        await asyncio.gather(*(machine.close(release=False) for machine in clients))

    async def _start(
        self,
        container: Container,
        network: Network,
        endpoint: Endpoint,
        first: Callable[[DhcpLease | None], None] = lambda lease: None,
    ) -> client.DhcpClient:
        from netengine.kernel import dhcp as client  # 3 MiB, and few hosts ask a server

        def changed(lease: client.Lease | None) -> None:
            kept = DhcpLease(**asdict(lease)) if lease else None
            first(kept)
            if endpoint.dhcp is not None:  # not the first one, for which `bind` waits
                work = self._renewed(container, network, endpoint, kept)
                self._core.background(asyncio.create_task(work, name=f"DHCP lease of {container.name}"))

        descriptor, mac = await self._core.on_kernel(
            client.open_socket, self._core.kernel, endpoint.sandbox_id, endpoint.link
        )
        old = endpoint.dhcp
        machine = client.DhcpClient(
            endpoint.link,
            descriptor,
            mac,
            identity=f"{container.id[:12]}-{network.id[:12]}",
            host_name=container.config.hostname or container.id[:12],
            lease=client.Lease(**msgspec.structs.asdict(old)) if old else None,
            changed=changed,
        )
        self._clients[endpoint.id] = machine
        await machine.start()
        if old is not None:
            self._expire_at(container, network, endpoint, old)
        return machine

    # -- what leases become ---------------------------------------------------------------------------------------------

    async def _renewed(
        self, container: Container, network: Network, endpoint: Endpoint, lease: DhcpLease | None
    ) -> None:
        before = endpoint.address
        if lease is None and not before:
            return  # it is known
        if lease is None:
            log.error("container %s has lost its DHCP lease of %s on network %s", container.name, before, network.name)
        elif lease.address != before:
            log.warning(
                "container %s has another address on network %s by DHCP: %s, before %s",
                container.name,
                network.name,
                lease.address,
                before or "none",
            )
        try:
            await self._take(container, network, endpoint, lease)
        except NetengineError as e:
            log.error("the DHCP lease of %s on %s cannot be used: %s", container.name, network.name, e)
            return
        if endpoint.address != before:
            await self._told(container)
        if endpoint.address not in ("", before):
            self._core.announce(network, container, endpoint)

    async def _take(self, container: Container, network: Network, endpoint: Endpoint, lease: DhcpLease | None) -> None:
        """Make a lease, or that there is none, part of the model and of the kernel."""
        core, before = self._core, endpoint.address
        async with core.operation(f"DHCP lease of {container.name} on {network.name}") as operation:
            if container.endpoints.get(network.id) is not endpoint:
                return  # it has left the network meanwhile
            rendered = sandbox.render(core.state, container)
            self._set(operation, endpoint, lease)
            operation.put(container)
            await sandbox.settle_ports(core, operation, container)
            await operation.apply(sandbox.render(core.state, container), rendered)
        if endpoint.address not in ("", before) and endpoint.mac:
            # The kernel announces the addresses that a link comes up with: this one came later.
            await core.on_kernel(core.kernel.announce, [(endpoint.sandbox_id, endpoint.link, endpoint.mac)])
        if lease is not None:
            self._expire_at(container, network, endpoint, lease)

    def _set(self, operation: Operation, endpoint: Endpoint, lease: DhcpLease | None) -> None:
        before = endpoint.address, endpoint.gateway, endpoint.dhcp

        def undo() -> None:
            endpoint.address, endpoint.gateway, endpoint.dhcp = before

        operation.change(undo)
        if lease is None:
            # What is kept of the lease says that it was one: the next is not the first.
            endpoint.address, endpoint.gateway = "", ""
        else:
            endpoint.address, endpoint.gateway, endpoint.dhcp = lease.address, lease.gateway, lease

    def _expire_at(self, container: Container, network: Network, endpoint: Endpoint, lease: DhcpLease) -> None:
        """RFC 2131: an address whose lease has run out is not to be used. pyroute2's client does not watch a lease that it
        took over from an earlier life, and it ends when its link is down for a moment: one that has not renewed in time is
        replaced."""
        self._disarm(endpoint)
        if lease.seconds < 0:
            return
        now = boot_seconds()
        # Earlier versions wrote Unix time, which is long after any machine's start: how old that lease is nobody knows.
        end = lease.obtained + lease.seconds if lease.obtained <= now else now
        left = max(end - now, self._started + _GRACE - now, 0.0)
        loop = asyncio.get_running_loop()
        timers = [loop.call_later(left, lambda: self._later(self._renewed(container, network, endpoint, None)))]
        if left > _GRACE:
            timers.append(loop.call_later(left * _LATE, lambda: self._later(self._again(container, network, endpoint))))
        self._timers[endpoint.id] = timers

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        self._core.background(asyncio.create_task(work, name="DHCP"))

    def _disarm(self, endpoint: Endpoint) -> None:
        for timer in self._timers.pop(endpoint.id, ()):
            timer.cancel()
