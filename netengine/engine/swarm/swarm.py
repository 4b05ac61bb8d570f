"""The cluster that this host is in: begun, joined, left, changed and shown.

Everything is checked before the first effect, and what fails half-way is taken back: a host is in a cluster from the moment on
that its identity is on disk (cluster/identity.py), or it is in none. What a node does all day is in membership.py.
"""

from __future__ import annotations

import asyncio
import logging
import socket

from netengine import failpoints
from netengine.cluster import access, joining, tokens
from netengine.cluster.etcdprocess import EtcdProcess
from netengine.cluster.identity import Files, Identity
from netengine.cluster.managers import Managers
from netengine.cluster.member import EtcdMember
from netengine.cluster.mirror import Change
from netengine.cluster.records import CONTROL_PORT, MANAGER, NodeRecord
from netengine.cluster.session import Session
from netengine.engine.checks import NOT_A_MANAGER, ON_A_WORKER
from netengine.engine.core import Core
from netengine.engine.swarm import events, founding, leaving, ledger, outside, settings, specs, takeover
from netengine.engine.swarm.addresses import Whereabouts, settle, with_port
from netengine.engine.swarm.membership import Membership, Overlay
from netengine.engine.swarm.nodes import Nodes
from netengine.engine.swarm.requests import InitRequest, JoinRequest, SwarmSpec
from netengine.engine.swarm.views import ACTIVE, ERROR, PENDING, ClusterView, HostView, cluster_view
from netengine.errors import Conflict, Invalid, NetengineError, Unavailable
from netengine.kernel import surroundings, theirs

log = logging.getLogger(__name__)

NOT_PART = "This node is not part of a swarm"
PART_ALREADY = (
    'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.'
)
NOT_PREPARED = "This node is not a swarm manager. Manager is being prepared or has trouble connecting to the cluster."


class Swarm:
    """The operations. One at a time changes what this host is; reading is free."""

    def __init__(self, core: Core, overlay: Overlay) -> None:
        self._core = core
        self._overlay = overlay
        self.files = Files(core.config.data_root / "cluster")
        self._process = EtcdProcess(self.files.directory / "etcd", core.config.exec_root)
        self._outside = outside.of(core.config)
        self.nodes = Nodes(self)
        self._membership: Membership | None = None
        self._broken = ""
        self._changing = asyncio.Lock()

    # -- life of the daemon -------------------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Before the engine takes over the kernel's state: what this host knows of its cluster, without asking anybody."""
        if not self.files.exists():
            if self.files.directory.exists():
                log.warning("what a half-made membership of a cluster has left in %s is removed", self.files.directory)
                await self._sweep()
            return
        try:
            identity = self.files.load()
            self._membership = self._made(identity)
            await self._membership.begin()
        except NetengineError as e:
            log.error("%s", e.message)
            self._broken = e.message

    def start(self) -> None:
        """Go on being a node, in the background: what is local does not wait for it."""
        if self._membership is not None:
            self._membership.tend()

    async def close(self) -> None:
        if self._membership is not None:
            await self._membership.close()

    async def cleanup(self) -> list[str]:
        """End the host's member of etcd and forget the cluster, for `netengined --cleanup`; a line on what was there."""
        known = self.files.directory.exists()
        await self._sweep()
        return ["membership of a cluster"] if known else []

    def _made(self, identity: Identity) -> Membership:
        member = EtcdMember(self.files, self._process, identity.node, identity.advertise_address)
        made = Membership(self.files, identity, member, self._overlay, self._outside)
        made.on_change = self._told
        return made

    async def _sweep(self) -> None:
        """Nothing of a cluster is left on this host."""
        await self._process.end()
        self.files.forget()

    # -- what is shown ------------------------------------------------------------------------------------------------

    @property
    def session(self) -> Session | None:
        return self._membership.session if self._membership else None

    @property
    def state(self) -> str:
        """LocalNodeState."""
        if self._broken:
            return ERROR
        if self._membership is None:
            return HostView().state
        if not self._membership.session.mirror.revision:
            return PENDING
        return ACTIVE

    @property
    def is_manager(self) -> bool:
        """Whether this host can be asked about the cluster."""
        m = self._membership
        return m is not None and m.identity.is_manager and bool(m.session.mirror.revision)

    def host(self) -> HostView:
        m = self._membership
        if m is None:
            return HostView(state=self.state, error=self._broken)
        session = m.session
        known = [held.record for held in session.mirror.nodes() if held.record.role == MANAGER]
        cluster = session.mirror.cluster
        return HostView(
            state=self.state,
            node_id=m.identity.node,
            address=m.identity.advertise_address,
            control_available=self.is_manager,
            error=m.error,
            managers=tuple((r.id, with_port(r.address, CONTROL_PORT)) for r in known),
            nodes=len(session.mirror.nodes()),
            cluster=cluster_view(cluster) if cluster and self.is_manager else None,
            store=access.shown(cluster.record.store, session.etcd.namespace)
            if cluster and cluster.record.store
            else "",
            warnings=outside.warnings(cluster.record, session.etcd.namespace) if cluster else (),
        )

    def managing(self) -> Session:
        """The session of a manager. Raises Unavailable, in Docker's words, on every other host."""
        m = self._membership
        if m is None:
            raise Unavailable(NOT_A_MANAGER)
        if not m.identity.is_manager:
            raise Unavailable(ON_A_WORKER)
        if m.session.mirror.cluster is None:
            raise Unavailable(NOT_PREPARED)
        return m.session

    async def inspect(self) -> ClusterView:
        held = self.managing().mirror.cluster
        assert held is not None  # managing() has looked
        return cluster_view(held)

    async def tokens(self) -> tuple[str, str]:
        """The join tokens, of workers and of managers."""
        from netengine.cluster import certificates

        session = self.managing()
        session.check()
        secrets = await ledger.tokens(session.etcd)
        root = (await self.inspect()).root
        assert root is not None
        digest = certificates.digest(root.certificate)
        return str(tokens.Token(digest, secrets.worker)), str(tokens.Token(digest, secrets.manager))

    # -- begin, join, leave -------------------------------------------------------------------------------------------

    async def init(self, asked: InitRequest) -> str:
        """Begin a cluster with this host as its first manager; the node's id."""
        async with self._changing:
            if asked.force_new_cluster and self._membership is not None:
                return await self._begin_anew(self._membership)
            self._check_free()
            spec = specs.settled(asked.spec, asked.auto_lock_managers)
            pools, size = specs.address_pools(asked.default_addr_pool, asked.subnet_size)
            port = specs.data_path_port(asked.data_path_port)
            where = await self._whereabouts(asked.listen_addr, asked.advertise_addr, asked.data_path_addr)
            ca = asked.spec.ca_config if asked.spec else None
            plan = founding.Plan(
                where=where,
                name=socket.gethostname(),
                availability=specs.availability(asked.availability),
                spec=spec,
                pools=pools,
                subnet_size=size,
                data_path_port=port,
                root=(ca.signing_ca_cert, ca.signing_ca_key) if ca else ("", ""),
                outside=self._outside if self._outside.urls else None,
            )
            if plan.outside is None:
                self._process.executable()
            founding.check_control_port(where)
            founding.check_data_path(where, port)
            try:
                takes_over = asked.force_new_cluster and plan.outside is not None
                taken = await takeover.join(plan, self.files) if takes_over else None
                identity = taken or await founding.found(plan, self.files, self._process)
                try:
                    await self._enter(identity)
                except BaseException:
                    if plan.outside is not None:
                        await (takeover.withdraw if taken else outside.take_back)(plan.outside, identity)
                    raise
            except BaseException:
                await self._sweep()
                raise
            did = "taken over" if taken else "begun"
            log.info("this host has %s cluster %s as node %s", did, identity.cluster, identity.node)
            return identity.node

    async def _begin_anew(self, m: Membership) -> str:
        """After a majority of the managers was lost for good: this manager alone goes on, with all that the store has."""
        if not m.identity.is_manager:
            if not m.identity.external_store:
                raise Unavailable(ON_A_WORKER)
            await m.take_over()
            return m.identity.node
        if m.identity.external_store:
            raise Invalid(
                f"--force-new-cluster is for a store that managers run, and this cluster's is "
                f"{access.shown(m.identity.endpoints, m.identity.store_prefix)}: no number of managers is needed for it to "
                "answer; when it has lost its own majority, mend it there (etcd --force-new-cluster)"
            )
        await m.begin_anew()
        log.warning("this host is the only manager of cluster %s from now on", m.identity.cluster)
        return m.identity.node

    async def join(self, asked: JoinRequest) -> None:
        """Become a node of the cluster that the token is for."""
        async with self._changing:
            self._check_free()
            token = tokens.parse(asked.join_token)
            remotes = [r for r in asked.remote_addrs or [] if r.strip()]
            if not remotes:
                raise Invalid("at least 1 RemoteAddr is required to join")
            availability = specs.availability(asked.availability)
            where = await self._whereabouts(asked.listen_addr, asked.advertise_addr, asked.data_path_addr)
            joined = await joining.join(
                remotes,
                token,
                socket.gethostname(),
                where.advertise,
                data_path_address=where.data_path,
                availability=availability,
            )
            failpoints.reach("swarm: admitted")
            said = joined.admission
            identity = Identity(
                node=said.node,
                cluster=said.cluster,
                role=said.role,
                name=socket.gethostname(),
                advertise_address=where.advertise,
                listen_address=where.listen,
                data_path_address=where.data_path,
                data_path_port=said.data_path_port,
                managers=tuple(said.managers),
                endpoints=tuple(said.endpoints),
                external_store=said.external_store,
                store_prefix=said.store_prefix,
                store_roots=said.store_roots,
                user=said.user,
                password=said.password,
            )
            try:
                self.files.save(identity, joined.key, said.certificate, said.trust)
                failpoints.reach("swarm: identity saved")
                founding.check_data_path(where, said.data_path_port)
                outside.check(self._outside, identity)
                if identity.is_manager:
                    founding.check_control_port(where)
                    if not identity.external_store:
                        self._process.executable()
                await self._enter(identity)
            except BaseException:
                await self._withdraw(identity)
                await self._sweep()
                raise
            log.info("this host has joined cluster %s as %s %s", identity.cluster, identity.role, identity.node)

    async def _enter(self, identity: Identity) -> None:
        """Be the node that the identity says, all of it, before anybody is told that it worked."""
        membership = self._made(identity)
        try:
            await membership.begin()
            await membership.connect()
            failpoints.reach("swarm: connected")
            await membership.settle()
            failpoints.reach("swarm: settled")
        except BaseException:
            await self._overlay.end()
            await membership.close(leaving=True)
            raise
        self._membership, self._broken = membership, ""
        membership.tend()

    async def leave(self, *, force: bool) -> None:
        async with self._changing:
            m = self._membership
            if m is None and not self._broken:
                raise Unavailable(NOT_PART)
            if m is not None and m.identity.is_manager and not force:
                raise Unavailable(leaving.warning(m.session))
            await self._overlay.end()
            if m is not None:
                await leaving.resign(m.session, m.identity)
                await m.close(leaving=True)
            await self._sweep()
            self._membership, self._broken = None, ""
            log.info("this host has left its cluster")

    def _check_free(self) -> None:
        if self._membership is not None or self._broken:
            raise Unavailable(PART_ALREADY)

    async def _whereabouts(self, listen: str, advertise: str, data_path: str) -> Whereabouts:
        core = self._core
        there = await core.on_kernel(theirs.reachable_addresses, core.kernel)
        uplink = await core.on_kernel(surroundings.uplink, core.kernel)
        return settle(listen, advertise, data_path, there, uplink.link if uplink else "")

    async def _withdraw(self, identity: Identity) -> None:
        """The managers forget a node that could not be one."""
        asking = Managers(self.files, identity.managers)
        try:
            await asking.call("withdraw", {})
        except NetengineError as e:
            log.warning("the managers could not be told that this host does not join after all: %s", e.message)
        finally:
            await asking.close()

    # -- changes of the cluster ---------------------------------------------------------------------------------------

    async def update(
        self, version: int, asked: SwarmSpec, *, rotate_worker: bool, rotate_manager: bool, rotate_unlock_key: bool
    ) -> None:
        session = self.managing()
        session.check()
        if rotate_unlock_key:
            raise Invalid("there is no unlock key: managers of netengine are not locked")
        await settings.update(session, version, asked, rotate_worker=rotate_worker, rotate_manager=rotate_manager)

    def unlock(self) -> None:
        """Raises, always: nothing is locked."""
        if self._membership is None:
            raise Unavailable(NOT_PART)
        raise Conflict("swarm is not locked")

    async def forget_node(self, record: NodeRecord) -> None:
        session = self.managing()
        await ledger.dismiss(session.etcd, record)
        await ledger.shut_out(session.etcd, record.id)

    async def dismiss(self, record: NodeRecord) -> None:
        await ledger.dismiss(self.managing().etcd, record)

    # -- events -------------------------------------------------------------------------------------------------------

    def _told(self, changes: list[Change]) -> None:
        """What happens to nodes is told on managers, as Docker does."""
        m = self._membership
        if m is None or not m.identity.is_manager:
            return
        for change in changes:
            events.publish(self._core.events, m.session, change)
