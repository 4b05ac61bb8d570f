"""What a manager decides about other hosts: who is let in and as what, and which certificate a node gets.

The control service (cluster/control.py) has checked who asks before it comes here. Everything is written to etcd before it is
answered, so that every manager would answer the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import msgspec

from netengine.cluster import keys, tokens, users
from netengine.cluster.control import Caller
from netengine.cluster.member import urls_of
from netengine.cluster.protocol import Admission, JoinRequest, Renewal, RenewRequest
from netengine.cluster.records import CONTROL_PORT, MANAGER, ClusterRecord, NodeRecord
from netengine.cluster.session import Session
from netengine.engine.core import now
from netengine.engine.swarm import ledger, specs
from netengine.engine.swarm.addresses import with_port
from netengine.errors import Conflict, Invalid, Unavailable
from netengine.store.etcd import Compare, Put

_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")


class Registrar:
    """The manager's part that the control service calls. `session` answers this host's session at any time."""

    def __init__(self, session: Callable[[], Session]) -> None:
        self._session = session

    def trust(self) -> str:
        return self._cluster().trust

    async def role_of(self, node: str) -> str:
        session = self._session()
        held = session.mirror.node(node)
        if held is not None:
            return held.record.role
        # Another manager may have let it in a moment ago, and the mirror not have heard of it yet.
        return (await ledger.node(session.etcd, node)).role

    async def admit(self, request: JoinRequest, address: str) -> Admission:
        session = self._session()
        session.check()
        cluster = self._cluster()
        held = await ledger.tokens(session.etcd)
        role = tokens.role_of(request.secret, held.worker, held.manager)
        record = self._node(request, role)
        await self._check_unique(session, record)
        _check_family(session, request.data_path_address or record.address)
        authority = await ledger.authority(session.etcd)
        certificate = ledger.issue(authority, cluster, record, request.request, [record.address])
        password = users.make_password() if cluster.store_users else ""
        if cluster.store_users:
            await users.admit(session.etcd, record.id, password, manager=role == MANAGER)
        try:
            outcome = await session.etcd.transact(
                [Compare(keys.node(record.id), "VERSION", 0)], [Put(keys.node(record.id), msgspec.json.encode(record))]
            )
        except BaseException:
            await ledger.forget_quietly(session.etcd, record)
            raise
        await session.mirror.reached(outcome.revision)
        return Admission(
            node=record.id,
            role=role,
            cluster=cluster.id,
            certificate=certificate,
            trust=authority.trust,
            managers=managers(session),
            endpoints=endpoints(session),
            user=users.user_of(record.id) if cluster.store_users else "",
            password=password,
            external_store=bool(cluster.store),
            store_prefix=session.etcd.namespace,
            store_roots=cluster.store_roots,
            data_path_port=cluster.data_path_port,
        )

    async def renew(self, caller: Caller, request: RenewRequest) -> Renewal:
        session = self._session()
        session.check()
        cluster = self._cluster()
        record = await ledger.node(session.etcd, caller.node)
        authority = await ledger.authority(session.etcd)
        certificate = ledger.issue(authority, cluster, record, request.request, [*request.addresses, record.address])
        if cluster.store_users:
            await users.set_manager(session.etcd, record.id, record.role == MANAGER)
        await ledger.note_certificate(session.etcd, record.id, certificate, authority)
        return Renewal(
            certificate=certificate,
            trust=authority.trust,
            role=record.role,
            managers=managers(session),
            endpoints=endpoints(session),
        )

    # -- calls of nodes -----------------------------------------------------------------------------------------------

    async def where(self, caller: Caller, payload: Any) -> Any:
        """Where the managers and the members of etcd are now."""
        session = self._session()
        roots = self._cluster().store_roots
        return {"managers": managers(session), "endpoints": endpoints(session), "roots": roots}

    async def withdraw(self, caller: Caller, payload: Any) -> Any:
        """A host that was let in and could not become a node takes that back."""
        session = self._session()
        session.check()
        record = await ledger.node(session.etcd, caller.node)
        await ledger.forget_node(session.etcd, record)
        return {}

    # -- pieces -------------------------------------------------------------------------------------------------------

    def _cluster(self) -> ClusterRecord:
        held = self._session().mirror.cluster
        if held is None:
            raise Unavailable("this manager has not read the cluster's state yet: try again")
        return held.record

    def _node(self, request: JoinRequest, role: str) -> NodeRecord:
        """Raises Invalid."""
        if not _HOST_NAME.fullmatch(request.name):
            raise Invalid(f"invalid host name {request.name[:80]!r}: letters, digits, '-', '_' and '.' are allowed")
        for what, text in (("advertise", request.advertise_address), ("data path", request.data_path_address)):
            if not text and what == "data path":
                continue
            try:
                at = ip_address(text)
            except ValueError:
                raise Invalid(f"invalid {what} address {text[:60]!r}: it is no IP address") from None
            if at.is_unspecified or at.is_multicast:
                raise Invalid(f"invalid {what} address {text}: no host can be reached by it")
        return NodeRecord(
            id=ledger.new_id(),
            name=request.name,
            role=role,
            availability=specs.availability(request.availability),
            address=request.advertise_address,
            created=now(),
        )

    async def _check_unique(self, session: Session, record: NodeRecord) -> None:
        """Two hosts of one name or address that are both up are a mistake; one that is down may have been made anew."""
        for other in (held.record for held in session.mirror.nodes()):
            if record.name != other.name and record.address != other.address:
                continue
            # Asked of etcd: the mirror may not have heard yet that a node has just left.
            if await session.etcd.get(keys.alive(other.id)) is None:
                continue
            if other.name == record.name:
                raise Conflict(
                    f"the name {record.name} is taken by node {other.id}, which is up: give this host another name "
                    "(hostnamectl hostname NAME)"
                )
            raise Conflict(
                f"the address {record.address} is taken by node {other.id} ({other.name}), which is up: give this host's own "
                "with --advertise-addr"
            )


def _check_family(session: Session, data_path: str) -> None:
    """A VXLAN link sends over the family of its own address only (drivers/vxlan/vxlan_core.c of the kernel)."""
    version = ip_address(data_path).version
    for held in session.mirror.nodes():
        status = session.mirror.status(held.record.id)
        if status is not None and ip_address(status.data_path).version != version:
            raise Invalid(
                f"the data path address {data_path} is IPv{version}, and that of node {held.record.name} is "
                f"{status.data_path}: tunnels need one family on all hosts; give an address of the other with "
                "--data-path-addr or --advertise-addr"
            )


def managers(session: Session) -> list[str]:
    """ADDRESS:PORT of the control services, this host's and those that are up first."""
    found = [held.record for held in session.mirror.nodes() if held.record.role == MANAGER]
    found.sort(key=lambda r: (r.id != session.place.node_id, not session.mirror.is_alive(r.id)))
    return [with_port(r.address, CONTROL_PORT) for r in found]


def endpoints(session: Session) -> list[str]:
    """The URLs of etcd's members, those of hosts that are up first; or of the etcd that is not the cluster's own."""
    held = session.mirror.cluster
    if held is not None and held.record.store:
        return list(held.record.store)
    found = [held.record for held in session.mirror.nodes() if held.record.member]
    found.sort(key=lambda r: (r.id != session.place.node_id, not session.mirror.is_alive(r.id)))
    return [urls_of(r.address).client for r in found]
