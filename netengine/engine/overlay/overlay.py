"""The overlay networks of this host: one object, owned by the engine, that begins with a session and ends with it.

Its membership calls `begin` once the session has started, at best before the engine's start looks at the kernel, so that what
leads to other hosts is not taken for a leftover; and `end` before the session is closed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_network

import msgspec

from netengine.cluster import networks as shared
from netengine.cluster.mirror import Mirror
from netengine.cluster.session import Session
from netengine.drivers.underlay import Underlay
from netengine.engine import configurations, loading, reconcile, subnets
from netengine.engine.checks import NOT_A_MANAGER, ON_A_WORKER
from netengine.engine.core import Core
from netengine.engine.names import Names
from netengine.engine.overlay import departure, gateway, uplink, views
from netengine.engine.overlay.claims import GONE, Claims
from netengine.engine.overlay.creation import drafter
from netengine.engine.overlay.encryption import Encryption
from netengine.engine.overlay.fabric import Claim, Fabric
from netengine.engine.overlay.following import Following
from netengine.engine.requests import NetworkRequest
from netengine.errors import Conflict, Forbidden, Unavailable
from netengine.kernel import theirs
from netengine.model import Attachment, Container, JsonDict, Network

log = logging.getLogger(__name__)

_PATIENCE = 5.0  # seconds in which this host has taken in what it wrote itself


class Overlay:
    """`make_gateway` makes docker_gwbridge; `changed` is told of a container that has lost its overlay networks."""

    def __init__(
        self,
        core: Core,
        names: Names,
        make_gateway: Callable[[NetworkRequest], Awaitable[object]],
        changed: Callable[[Container], None],
    ) -> None:
        self._core = core
        self._names = names
        self._make_gateway = make_gateway
        self._changed = changed
        self._session: Session | None = None
        self._claims: Claims | None = None
        self._following: Following | None = None
        self._encryption: Encryption | None = None
        self._rotation: asyncio.Task[None] | None = None
        self._waiting: dict[str, Callable[[], Awaitable[None]]] = {}
        """Containers that are to be started again, by id."""
        self._ready = False
        """Whether the engine has taken over what there was."""
        self._leaving = False

    # -- life ---------------------------------------------------------------------------------------------------------

    async def begin(self, session: Session) -> None:
        """This host belongs to a cluster. The session has started, if only from its file."""
        await self.close()
        self._session = session
        self._claims = Claims(self._core, session)
        self._encryption = Encryption(self._core, session)
        self._following = Following(self._core, self._names, session, self._take_networks)
        if self._ready:
            async with self._core.lock:
                await self._open(session)
            await self._catch_up(late=True)

    async def prepare(self) -> None:
        """At the start of the engine, before containers are loaded and the kernel is looked at."""
        kept = self._core.store.setting(uplink.SETTING)
        if kept:
            with suppress(msgspec.DecodeError):
                self._core.state.fabric.underlay = msgspec.json.decode(kept, type=Underlay)
        if self._session is not None:
            await self._open(self._session)

    async def resume(self) -> None:
        """At the end of the engine's start."""
        self._ready = True
        if self._session is not None:
            uplink.tell(self._core.state, {})
            await self._catch_up(late=False)
            return
        async with self._core.lock:
            wanted = {n for c in self._core.state.containers.values() for n in (*c.attachments, *c.endpoints)}
            for network in list(self._core.state.networks.values()):
                if network.overlay is not None and network.id not in wanted:
                    self._forget(network.id)  # of a cluster that this host has lost sight of

    async def close(self) -> None:
        """The daemon stops: everything stays as it is."""
        following, claims = self._following, self._claims
        if self._session is not None and self._connected in self._session.on_connect:
            self._session.on_connect.remove(self._connected)
        self._session = self._claims = self._following = self._encryption = None
        if self._rotation is not None:
            self._rotation.cancel()
            self._rotation = None
        if following is not None:
            await following.end()
        if claims is not None:
            claims.close()

    async def end(self) -> None:
        """This host leaves its cluster: containers lose their overlay networks, and these are forgotten, at once and together.

        The session must still be there, so that addresses can be given back; without a majority they wait for `docker node rm`.
        Raises what the database refuses: then all is as before.
        """
        core = self._core
        self._leaving = True  # from here on nobody is let to a network that is going
        try:
            networks, gone = await departure.forget_all(core)
            for each in gone:
                await self._names.left(each.container, each.network, each.endpoint.id)
                self._changed(each.container)
                core.publish_network("disconnect", each.network, each.container)
            if self._claims is not None:
                await self._claims.give_all_back(n.id for n in networks)
            await self.close()
            async with core.lock:
                core.state.fabric = Fabric()
                with core.store.transaction() as t:
                    t.set(uplink.SETTING, "")
        finally:
            self._leaving = False
        for network in networks:
            await self._names.removed(network)

    async def _open(self, session: Session) -> None:
        """Fill the model with what the session knows."""
        core = self._core
        place = session.place
        core.state.fabric.underlay = await uplink.find(core, place.data_path, place.data_path_port)
        if self._encryption is not None:
            await self._encryption.load()
        uplink.remember(core)
        for held in session.mirror.networks():
            self._add(held.record.network)
        if self._following is not None:
            self._following.take_all()

    async def _catch_up(self, *, late: bool) -> None:
        following, claims = self._following, self._claims
        if following is None or claims is None or self._session is None:
            return
        following.begin()
        if self._encryption is not None:
            self._rotation = asyncio.create_task(self._encryption.run(), name="WireGuard key")
        self._session.on_connect.append(self._connected)
        known = {held.record.network.id for held in self._session.mirror.networks()}
        async with self._core.lock:
            await self._take_networks({n.id for n in self._core.state.networks.values() if n.overlay} - known)
            if late:
                await reconcile.mend(self._core, await reconcile.host_difference(self._core))
        if late:
            for network_id in known & self._core.state.networks.keys():
                await self._names.elsewhere(self._core.state.networks[network_id])
        if self._session is not None and self._session.connected:
            await claims.compare()

    def _connected(self) -> None:
        """The store answers (again): what has happened here meanwhile is told to it."""
        self._core.background(asyncio.create_task(self._reconnected(), name="endpoints"))

    async def _reconnected(self) -> None:
        if self._claims is not None:
            await self._claims.compare()
        if self._encryption is not None:
            await self._encryption.rotate_when_due()
        waiting, self._waiting = self._waiting, {}
        for start in waiting.values():
            await start()

    def must_wait(self, container: Container, start: Callable[[], Awaitable[None]]) -> bool:
        """Whether a container cannot be started before the store answers; `start` is called then."""
        overlays = [n for n in container.attachments if self._core.state.networks[n].overlay is not None]
        if not overlays or self._session is None or self._session.connected:
            return False
        self._waiting[container.id] = start
        return True

    # -- networks of the cluster in the model -------------------------------------------------------------------------

    async def _take_networks(self, ids: Iterable[str]) -> None:
        """Networks have come or gone. Under the writer lock."""
        if self._session is None or self._leaving:
            return
        core = self._core
        for network_id in ids:
            held, known = self._session.mirror.network(network_id), core.state.networks.get(network_id)
            if held is not None and known is None:
                self._add(held.record.network)
            elif held is None and known is not None and known.overlay is not None:
                if users := list(core.state.attached_to(network_id)):
                    log.error(
                        "network %s was removed from the cluster while this host was away, and %s are on it: disconnect them",
                        known.name,
                        ", ".join(c.name for c in users),
                    )
                    continue
                self._forget(network_id)
                core.background(asyncio.create_task(self._names.removed(known), name="names"))
                core.events.publish("network", "remove", known.id, name=known.name, type=known.driver)

    def _add(self, network: Network) -> None:
        """A network of the cluster becomes one of this host's model. One that cannot be is left out, and said so."""
        core = self._core
        if network.id in core.state.networks:
            return
        network = msgspec.convert(msgspec.to_builtins(network), Network)  # the mirror's own is not to be changed
        is_one = network.overlay is not None and network.driver == "overlay" and bool(network.overlay.vni)
        if problem := loading.open_pools(core, network) if is_one else "it is no overlay network":
            log.error("network %.80s of the cluster cannot be used here: %s", network.name, problem)
            return
        with core.store.transaction() as t:
            t.put("network", network.id, network)
        core.state.networks[network.id] = network
        if self._ready:
            core.events.publish("network", "create", network.id, name=network.name, type=network.driver)

    def _forget(self, network_id: str) -> None:
        core = self._core
        core.state.networks.pop(network_id, None)
        core.addresses.remove(network_id)
        core.state.fabric.peers.pop(network_id, None)
        core.state.fabric.named.pop(network_id, None)
        with core.store.transaction() as t:
            t.delete("network", network_id)
            for container in core.state.containers.values():
                if container.attachments.pop(network_id, None) is not None:
                    t.put("container", container.id, container)

    # -- create and remove --------------------------------------------------------------------------------------------

    def managing(self) -> Session:
        """The session of a manager that can write. Raises Forbidden elsewhere, Unavailable without a majority."""
        if self._session is None:
            raise Forbidden(NOT_A_MANAGER)
        if not self._session.place.is_manager:
            raise Forbidden(ON_A_WORKER)
        self._session.check()
        return self._session

    async def create(self, request: NetworkRequest) -> tuple[Network, str]:
        """A new network of the cluster, and a warning."""
        core, session = self._core, self.managing()
        if core.state.network_named(request.name) is not None:
            raise Conflict(f"network with name {request.name} already exists")
        request = configurations.resolve(core.state, request)
        request.options = subnets.default_options(core.config, request)
        cluster = session.mirror.cluster
        if cluster is None:
            raise Unavailable("the cluster's state is not known yet: try again in a moment")
        routes = await core.on_kernel(theirs.host_routes, core.kernel)
        own = [ip_network(s.subnet) for n in core.state.networks.values() if n.overlay is None for s in n.subnets]
        draft, warnings = drafter(request, cluster.record, [*routes, *own])
        network, revision = await shared.create(session.etcd, draft, cluster.record.vnis)
        await self._caught_up(revision)
        return network, "; ".join(warnings)

    async def remove(self, network: Network) -> None:
        session = self.managing()
        mirror = session.mirror
        users, revision = await shared.remove(session.etcd, network.id)
        if users:
            raise shared.in_use(network, users, lambda node: _shown(mirror, node))
        await self._caught_up(revision)

    async def _caught_up(self, revision: int) -> None:
        """What was written is seen here too, before the answer says that it is done."""
        with suppress(TimeoutError):
            if self._following is not None:
                async with asyncio.timeout(_PATIENCE):
                    await self._following.caught_up(revision)

    # -- endpoints ----------------------------------------------------------------------------------------------------

    async def claim(self, container: Container, wishes: Sequence[tuple[Network, Attachment]]) -> dict[str, Claim]:
        """What an operation needs that connects a container to overlay networks. Give it back with `keep` or `give_up`."""
        if self._claims is None or self._leaving:
            raise Unavailable(GONE.format(wishes[0][0].name))
        if gateway.may_be_needed([n for n, _ in wishes]) and gateway.find(self._core.state) is None:
            with suppress(Conflict):  # somebody else was faster
                await self._make_gateway(gateway.request())
        if self._encryption is not None and any(n.overlay is not None and n.overlay.encrypted for n, _ in wishes):
            await self._encryption.ensure()
        out: dict[str, Claim] = {}
        try:
            for network, wish in wishes:
                out[network.id] = await self._claims.take(container, network, wish)
        except BaseException:
            await asyncio.shield(self.give_up(out))
            raise
        return out

    def keep(self, claims: dict[str, Claim]) -> None:
        if claims and self._claims is not None:
            self._claims.kept(claims.values())

    async def give_up(self, claims: dict[str, Claim]) -> None:
        if claims and self._claims is not None:
            await self._claims.give_up(claims.values())

    @asynccontextmanager
    async def claimed(self, container: Container, networks: Sequence[Network]) -> AsyncIterator[Mapping[str, Claim]]:
        """What the operation in the block needs, by network; given up when that fails."""
        wishes = [(n, container.attachments[n.id]) for n in networks if n.overlay is not None]
        claims = await self.claim(container, wishes) if wishes else {}
        try:
            yield claims
        except BaseException:
            await asyncio.shield(self.give_up(claims))
            raise
        unused = {n: claim for n, claim in claims.items() if n not in container.endpoints}  # it is off them meanwhile
        self.keep({n: claim for n, claim in claims.items() if n not in unused})
        await self.give_up(unused)

    async def left(self) -> None:
        """Endpoints of this host are gone: the others are told."""
        if self._claims is not None and self._core.state.fabric.leaving:
            await self._claims.settle()

    async def renamed(self, container: Container) -> None:
        if self._claims is not None:
            await self._claims.renamed(container)

    # -- what is shown ------------------------------------------------------------------------------------------------

    def figures(self, network: Network) -> list[tuple[str, int, int]] | None:
        """(subnet, addresses in use in the whole cluster, addresses left) of each subnet; None where nobody knows."""
        return views.figures(self._session.mirror, network) if self._session is not None else None

    def view(self, network: Network, *, verbose: bool) -> JsonDict:
        """What inspect shows of the other hosts."""
        if self._session is None or network.overlay is None:
            return {}
        mirror = self._session.mirror
        out: JsonDict = {"Peers": views.peers(mirror, self._session.place, network.id)}
        return out | {"Services": views.services(mirror, network.id)} if verbose else out


def _shown(mirror: Mirror, node: str) -> str:
    """A node in a message, and that it is down where that is why its containers do not leave."""
    name = views.name_of(mirror, node)
    return name if mirror.is_alive(node) else f"{name} (down: `docker node rm --force` it if it does not come back)"
