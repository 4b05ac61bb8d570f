"""This host as a node of a cluster, from joining or the daemon's start until it leaves or the daemon ends.

Holds the node's identity, its session with the store and, on a manager, its member of etcd and the control service. What the
records say of this node (its role, the roots, where the managers are) is carried out here, in one task, so that nothing of it
happens twice or at the same time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from netengine.cluster import access, blocks, revival
from netengine.cluster.access import Outside
from netengine.cluster.control import Control
from netengine.cluster.identity import Files, Identity
from netengine.cluster.managers import Managers
from netengine.cluster.member import EtcdMember, urls_of
from netengine.cluster.mirror import Change
from netengine.cluster.protocol import Renewal, RenewRequest
from netengine.cluster.records import CONTROL_PORT, MANAGER, NodeRecord
from netengine.cluster.session import Place, Session
from netengine.engine.swarm import ledger, outside, takeover
from netengine.engine.swarm.addresses import with_port
from netengine.engine.swarm.oversight import Oversight, restart_in_turn
from netengine.engine.swarm.registrar import Registrar, endpoints, managers
from netengine.engine.swarm.status import status_of
from netengine.errors import Forbidden, Invalid, NetengineError, Unavailable

log = logging.getLogger(__name__)

_COME_BACK = "docker swarm leave --force, then join again to come back"
REMOVED = f"this node was removed from its cluster: {_COME_BACK}"
EMPTIED = "the store holds nothing of this host's cluster: docker swarm leave --force, then begin or join one"
_AGAIN = 2.0  # seconds after which what could not be done is tried again
_READ_BACK = 10.0  # seconds in which the mirror is expected to have what was written on behalf of this host
_LOOK = 30.0  # seconds after which is looked at what no record tells: the age of the certificate


class Overlay(Protocol):
    """The engine's overlay networks, which live as long as the host is in a cluster."""

    async def begin(self, session: Session) -> None:
        """The host is in a cluster. The session may not have been connected yet, or not for long."""

    async def end(self) -> None:
        """The host leaves. Raises Conflict while it may not."""


class Membership:
    """Made with what is on disk; `begin` it, then `start`; `close` or `leave` it."""

    def __init__(
        self, files: Files, identity: Identity, member: EtcdMember, overlay: Overlay, configured: Outside
    ) -> None:
        self.files = files
        self.identity = identity
        self.member = member
        self.error = ""
        """Why the host is not the node that it should be; "" when all is well."""
        self.managers = Managers(files, identity.managers)
        # What was said of another place than the cluster's is not for this one.
        is_meant = identity.external_store and configured.prefix == identity.store_prefix
        self._outside = configured if is_meant else Outside()
        if configured.urls and not is_meant:
            log.warning(
                "this host's cluster does not have its store at %s: that is for one that begins here later", configured
            )
        self._told = False  # to the others, what this daemon was told of an etcd outside of the cluster
        self._stamps = access.stamps(self._outside)
        urls = self._urls(identity.endpoints)
        try:
            etcd = access.client(files, identity, urls, self._outside)
        except Invalid as e:
            # What the configuration names may be mended; the host is a node all the same, by what it knows.
            log.error("%s", e.message)
            etcd, self._stamps = access.client(files, identity, urls, Outside()), ()
        place = Place(identity.node, identity.role, identity.data_path, identity.data_path_port)
        self.session = Session(place, etcd, self._ask, status_of(identity), files.directory / "mirror.json")
        registrar = Registrar(lambda: self.session)
        self.control = Control(files, identity.cluster, registrar)
        self.control.calls |= {
            "where": registrar.where,
            "withdraw": registrar.withdraw,
            blocks.CALL: blocks.handler(etcd),
        }
        self.on_change: Callable[[list[Change]], None] = lambda changes: None
        self._overlay = overlay
        self._connected = False
        self._serving = False
        self._restart_due = False
        self._oversight = Oversight()
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._changing = asyncio.Lock()

    # -- life ---------------------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Take up what was known before, without asking anybody."""
        await self.session.mirror.restore()
        await self._overlay.begin(self.session)
        self.session.mirror.listeners.append(self._changed)
        self.session.on_connect.append(self._wake.set)
        self.session.on_loss.append(self._wake.set)

    async def connect(self) -> None:
        """Be a node: on a manager with its member of etcd, then with the session. Raises Unavailable, Conflict."""
        if self._connected:
            return
        await self._revive()
        if self._has_member and self.member.has_data():
            await self.member.resume()
        try:
            await self.session.start()
        except Forbidden as refused:
            raise await self._why(refused) from refused
        self._connected = True

    async def _why(self, refused: Forbidden) -> Forbidden:
        """The store does not know this node: a manager says whether that is because the cluster does not, either."""
        try:
            await self.managers.call("where", {})
        except Forbidden:
            return Forbidden(REMOVED)
        except NetengineError:
            return Forbidden(f"{refused.message}; if this host was removed from its cluster: {_COME_BACK}")
        return refused

    def tend(self) -> None:
        """From now on keep this node as the records say that it should be."""
        self._tasks = [asyncio.create_task(self._tend(), name="membership")]

    async def close(self, *, leaving: bool = False) -> None:
        """Stop; the member of etcd goes on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await self.control.close()
        self._serving = False
        await self.member.close()
        await self.session.close(leaving=leaving)
        await self.managers.close()

    async def begin_anew(self) -> None:
        """Make this manager the only one, with what its member of etcd has kept. Raises Unavailable, Conflict."""
        async with self._changing:
            own = [with_port(self.identity.advertise_address, CONTROL_PORT)], [self.member.urls.client]
            self.session.etcd.use(own[1])
            await self.member.recover()
            await ledger.keep_only(self.session.etcd, self.identity.node)
            self._use(*own)
            await self.session.look()
        self._wake.set()

    async def take_over(self) -> None:
        """Make this worker a manager, since none is left, where the store is not the managers'. Raises Unavailable, Conflict,
        Forbidden, Invalid."""
        from netengine.cluster import certificates

        async with self._changing:
            key = certificates.make_key()
            made, revision = await takeover.promote(self._outside, self.identity, key)
            try:
                async with asyncio.timeout(_READ_BACK):
                    await self.session.mirror.reached(revision)  # it would be a worker again by what that says
            except TimeoutError:
                raise Unavailable(
                    "this host does not hear from the cluster's store that it is a manager: try again"
                ) from None
            await self._show_certificate(key, made)
        await self.settle()

    async def _ask(self, call: str, payload: Mapping[str, Any]) -> Any:
        return await self.managers.call(call, payload)

    @property
    def _has_member(self) -> bool:
        return self.identity.is_manager and not self.identity.external_store

    def _urls(self, urls: tuple[str, ...]) -> list[str]:
        """The host's own member first; of an etcd that is not the cluster's, those that its configuration names."""
        if self.identity.external_store:
            return list(self._outside.urls or urls)
        own = urls_of(self.identity.advertise_address).client
        return sorted(urls, key=lambda url: url != own) or [own]

    # -- what the records say -----------------------------------------------------------------------------------------

    def _changed(self, changes: list[Change]) -> None:
        if any(c.kind in ("cluster", "nodes", "alive") for c in changes):
            self._wake.set()
            self.on_change(changes)

    @property
    def record(self) -> NodeRecord | None:
        held = self.session.mirror.node(self.identity.node)
        return held.record if held else None

    async def _tend(self) -> None:
        """Lasts until cancelled."""
        while True:
            self._wake.clear()  # what changes from here on is looked at once more
            try:
                await self.connect()
                await self.settle()
                self.error = self.session.refusal = ""
            except NetengineError as e:
                self.session.refusal = e.message if isinstance(e, Forbidden) else ""
                if e.message != self.error:
                    log.warning("%s", e.message)
                self.error = e.message
            except Exception as e:
                log.exception("this node of the cluster is not as it should be")
                self.error = f"{type(e).__name__}: {e}"
            with suppress(TimeoutError):
                async with asyncio.timeout(self._patience):
                    await self._wake.wait()

    @property
    def _patience(self) -> float:
        """Seconds until the next look, unless a record changes before."""
        return _AGAIN if self.error or self._restart_due or not self.session.connected else _LOOK

    async def settle(self) -> None:
        """Make this node what its record says. Does nothing when it is. Raises what went wrong; then it is tried again."""
        async with self._changing:
            self._follow_files()
            if not self.session.connected:
                await self._look_for_managers()
                return
            record = self.record
            if record is None:
                raise Forbidden(REMOVED if self.session.mirror.cluster else EMPTIED)
            await self._follow_trust()
            if record.role == MANAGER:
                await self._be_manager(record)
            else:
                await self._be_worker(record)
            await self._renew(record)
            await self._follow_addresses()
            if self.identity.is_manager:
                await self._oversee()

    async def _oversee(self) -> None:
        if revival.kept_trust(self.files) != self.files.roots():
            revival.keep(self.files, await ledger.authority(self.session.etcd))
        if not self._told:
            if self.identity.external_store:
                await outside.keep(self.session.etcd, self.identity.cluster)
            await outside.tell(self.session, self._outside)
            self._told = True
        await self._oversight.look(self.session)
        if self._restart_due and self._has_member and await restart_in_turn(self.session, self.member):
            self._restart_due = False

    async def _look_for_managers(self) -> None:
        """The store does not answer. A manager that does may say why: this node is none any more, or etcd has moved."""
        if self.identity.is_manager:
            await self._revive()
            self.session.check()
            return
        found = await self.managers.call("where", {})
        self._use(list(found["managers"]), list(found["endpoints"]), str(found.get("roots", "")))

    async def _follow_addresses(self) -> None:
        cluster = self.session.mirror.cluster
        self._use(managers(self.session), endpoints(self.session), cluster.record.store_roots if cluster else "")

    def _use(self, controls: list[str], urls: list[str], roots: str = "") -> None:
        if not controls or not urls:
            return
        self.managers.use(controls)
        self.session.etcd.use(self._urls(tuple(urls)))
        if self.identity.external_store:
            self.session.etcd.remedy = access.remedy(self._urls(tuple(urls)), self.identity.store_prefix)
            if roots != self.identity.store_roots:
                self._update(store_roots=roots)
                self.session.etcd.renew(access.context(self.files, self.identity, self._outside))
        if set(controls) != set(self.identity.managers) or set(urls) != set(self.identity.endpoints):
            self._update(managers=tuple(controls), endpoints=tuple(urls))

    def _update(self, **changes: Any) -> None:
        self.identity = msgspec.structs.replace(self.identity, **changes)
        self.files.update(self.identity)

    # -- roles --------------------------------------------------------------------------------------------------------

    async def _be_manager(self, record: NodeRecord) -> None:
        if not self.identity.is_manager:
            log.info("this node becomes a manager")
            await self._new_certificate()
        if self._has_member and await self._is_missing(record) and await self._is_manager_still(record):
            number = await self.member.join(self.session.etcd)
            await ledger.amend(self.session.etcd, record.id, lambda r: setattr(r, "member", f"{number:x}"))
        if not self._serving:
            await self.control.start(self.identity.listen_address)
            self._serving = True
        if not self._has_member and not record.member:
            await ledger.amend(self.session.etcd, record.id, ledger.as_manager)

    async def _is_manager_still(self, record: NodeRecord) -> bool:
        """By etcd, not by the mirror: who was away may be a worker by now, and must not become a member before it knows."""
        return (await ledger.node(self.session.etcd, record.id)).role == MANAGER

    async def _is_missing(self, record: NodeRecord) -> bool:
        """Whether this manager has no member of etcd that could run: not yet, its data is gone, or it was taken out."""
        if not record.member or not self.member.has_data():
            return True
        return bool(self.member.problem) and await self.member.member(self.session.etcd) is None

    async def _be_worker(self, record: NodeRecord) -> None:
        if self._serving:
            await self.control.close()
            self._serving = False
        if self.identity.is_manager:
            log.info("this node is a worker from now on")
            await self._follow_addresses()
            if self._has_member:
                with suppress(NetengineError):  # with a manager's rights, for as long as it has them
                    await self.member.forget(self.session.etcd)
            await self._new_certificate()
            await self.member.destroy()
            self.files.keep_root(b"")

    # -- certificates -------------------------------------------------------------------------------------------------

    async def _follow_trust(self) -> None:
        held = self.session.mirror.cluster
        if held is not None and held.record.trust and held.record.trust != self.files.roots():
            self.files.replace_trust(held.record.trust)
            await self._show_new_files()
            self._restart_due = self._has_member  # etcd reads its roots at its start only

    def _follow_files(self) -> None:
        """The certificate that an etcd outside of the cluster is shown has another life than the node's."""
        stamps = access.stamps(self._outside)
        if stamps != self._stamps:
            self.session.etcd.renew(access.context(self.files, self.identity, self._outside))
            self._stamps = stamps

    async def _revive(self) -> None:
        """When this manager's certificate has run out, so that it can be renewed by nobody else."""
        if revival.revive(self.files):
            await self._show_new_files()

    async def _renew(self, record: NodeRecord) -> None:
        """When the certificate is old, or of a root that is being left."""
        from netengine.cluster import certificates

        _, mine = self.files.key_and_certificate()
        said = certificates.read(mine)
        root = certificates.Authority(self.files.roots(), "")
        of_this_root = certificates.is_issued_by(mine, root)
        if said.role != record.role or datetime.now(UTC) >= said.renewal() or not of_this_root:
            await self._new_certificate()

    async def _new_certificate(self) -> None:
        """With the role that the records say. The key is new too."""
        from netengine.cluster import certificates

        key = certificates.make_key()
        request = RenewRequest(request=certificates.make_request(key), addresses=[self.identity.advertise_address])
        await self._show_certificate(key, await self.managers.renew(request))

    async def _show_certificate(self, key: str, got: Renewal) -> None:
        from netengine.cluster import certificates

        said = certificates.verify(got.certificate, got.trust)
        if said.node != self.identity.node or not certificates.matches(got.certificate, key):
            raise Unavailable("a manager has issued a certificate that is not this node's: it is not used")
        self.files.replace_trust(got.trust)
        self.files.replace_certificate(key, got.certificate)
        self._update(role=got.role)
        self.session.place = replace(self.session.place, role=got.role)
        await self._show_new_files()
        log.info(
            "this node has a new certificate, as %s, valid until %s", got.role, f"{said.not_after:%Y-%m-%d %H:%M} UTC"
        )

    async def _show_new_files(self) -> None:
        self.managers.renewed()
        self.session.etcd.renew(access.context(self.files, self.identity, self._outside))
        if self._serving:
            self.control.renewed()
        if self._has_member and self.member.has_data():
            await self.member.renewed()
